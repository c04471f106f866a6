"""Files of weights -> the dtype, shape and byte range of each tensor, without reading it."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ir.checkpoint.tensors import Change, Stored
from ir.errors import SourceError

SAFETENSORS_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""torch's dtypes by their names in safetensors."""

_AGAIN = "it is damaged, or was not fetched whole; fetch it again"


Tables: TypeAlias = dict[str, dict[str, Stored]]
"""Tensors by name, in each table of a file: "" is the file itself, "model" a dict under that key in it."""


def read_checkpoint(path: Path) -> Tables:
    """The tensors of a file of weights, or of a folder with such a file or an index of shards.

    Raises SourceError that names the file and, where there is one, the tensor.
    """
    if path.is_file():
        return _read_file(path)
    if path.is_dir():
        for name in _NAMES:
            if (file := path / name).is_file():
                return _read_file(file)
            if (index := path / f"{name}.index.json").is_file():
                return {"": _read_shards(index)}
        raise SourceError(f"the folder {path} is not a checkpoint: it has no {', '.join(_NAMES)} or index of shards")
    raise SourceError(f"there is no checkpoint at {path}; give a .safetensors file, or a folder that holds one")


_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
"""File names that transformers and diffusers save under, in the order in which they look for them."""


def _read_shards(index: Path) -> dict[str, Stored]:
    """The tensors that an index of shards names."""
    try:
        place = dict[str, str](json.loads(index.read_bytes())["weight_map"])
    except OSError as e:
        raise SourceError(f"cannot read {index}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise SourceError(f"cannot read {index}: {_AGAIN} ({type(e).__name__}: {e})") from e
    shards: dict[str, dict[str, Stored]] = {}
    for tensor, name in place.items():
        if not (index.parent / name).is_file():
            raise SourceError(f"{index.name} places {tensor} in {index.parent / name}, which is missing; fetch it")
        if name not in shards:
            shards[name] = _read_file(index.parent / name)[""]
        if tensor not in shards[name]:
            raise SourceError(f"{index.name} places {tensor} in {index.parent / name}, which does not hold it")
    return {tensor: shards[name][tensor] for tensor, name in place.items()}


def _read_file(file: Path) -> Tables:
    try:
        return {"": dict(_read_safetensors(file))} if file.suffix == ".safetensors" else _read_pickled(file)
    except OSError as e:
        raise SourceError(f"cannot read {file}: {e.strerror or e}") from e


def _read_safetensors(file: Path) -> Iterator[tuple[str, Stored]]:
    """A JSON table of byte ranges, its length before it and the bytes behind: huggingface.co/docs/safetensors."""
    size = file.stat().st_size
    with file.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if length > size - 8:
            raise SourceError(f"cannot read {file}: {_AGAIN} (a header of {length} bytes in a file of {size})")
        header = f.read(length)
    try:
        table = json.loads(header)
        entries = {
            name: (str(e["dtype"]), tuple(map(int, e["shape"])), *map(int, e["data_offsets"]))
            for name, e in table.items()
            if name != _ASIDE
        }
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SourceError(f"cannot read {file}: {_AGAIN} (its header is not a table of tensors)") from e
    for name, (spelled, shape, *span) in entries.items():
        yield name, _entry(file, name, spelled, shape, span, base=8 + length, end=size)


_ASIDE = "__metadata__"


def _entry(
    file: Path, name: str, spelled: str, shape: tuple[int, ...], span: list[int], *, base: int, end: int
) -> Stored:
    if spelled not in SAFETENSORS_DTYPES:
        raise SourceError(f"{name} in {file} is of dtype {spelled}, which torch cannot hold; convert the checkpoint")
    dtype = SAFETENSORS_DTYPES[spelled]
    first, last = span if len(span) == 2 else (0, -1)
    if not 0 <= first <= last or last - first != prod(shape) * dtype.itemsize:
        raise SourceError(f"cannot read {file}: {_AGAIN} ({name}: {spelled} {list(shape)} in bytes {first} to {last})")
    if base + last > end:
        raise SourceError(f"cannot read {file}: {_AGAIN} ({name} ends at byte {base + last}, the file at {end})")
    return Stored.whole(file, base + first, dtype, shape)


def _read_pickled(file: Path) -> Tables:
    """The tensors of a file of torch.save.  Fake tensors give the offsets of their bytes; no pickled code runs."""
    if not zipfile.is_zipfile(file):
        raise SourceError(
            f"cannot read {file}: {_AGAIN}; or save it again, as .safetensors or with a torch of 1.6 or later"
        )
    try:
        with FakeTensorMode(), torch.serialization.safe_globals([Namespace]):
            table: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as e:
        code = re.search(r"GLOBAL (\S+)", str(e))
        what = f"it holds {code[1]}, which is code and is not run" if code else f"it is damaged ({_first_line(e)})"
        raise SourceError(f"cannot read {file}: {what}; save its state dict as .safetensors") from e
    if not isinstance(table, dict):
        raise SourceError(f"{file} holds a {type(table).__name__}, not a table of tensors by name")
    return {"": {}, **dict(_tables(file, "", table))}


def _tables(file: Path, path: str, table: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Stored]]]:
    """The tensors of a dict, and those of the dicts in it."""
    if tensors := {str(key): _placed(file, x) for key, x in table.items() if isinstance(x, torch.Tensor)}:
        yield path, tensors
    for key, inner in table.items():
        if isinstance(inner, dict):
            yield from _tables(file, f"{path}.{key}".lstrip("."), inner)


def _placed(file: Path, tensor: torch.Tensor) -> Stored:
    offset: int = tensor.untyped_storage()._checkpoint_offset  # type: ignore[attr-defined]
    start = offset + int(tensor.storage_offset()) * tensor.dtype.itemsize
    change: Change = "negative" if tensor.is_neg() else "conjugate" if tensor.is_conj() else "none"
    return Stored.whole(file, start, tensor.dtype, tensor.shape, tensor.stride(), change)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
