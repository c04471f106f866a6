"""Files and folders of weights -> the dtype, shape and byte range of each tensor, without reading it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TypeAlias

import torch

from ir.checkpoint.formats.foreign import is_safetensors, require_own
from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.formats.ranks import rank_files, read_ranks
from ir.checkpoint.formats.recognized import other_names
from ir.checkpoint.formats.sharded import read_distributed
from ir.checkpoint.layouts import weights_in
from ir.checkpoint.tensors import Piece, Spread, Stored, contiguous
from ir.errors import SourceError, in_one_line

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

OF_STAGES = "stagecut"
"""The `format` in the header of a file whose quantized weights are as stages hold them, under names of their own."""

_AGAIN = "it is damaged, or was not fetched whole; fetch it again"


Tables: TypeAlias = dict[str, dict[str, Stored]]
"""Tensors by name, in each table of a file: "" is the file itself, "model" a dict under that key in it."""


def read_checkpoint(path: Path, variant: str = "") -> Tables:
    """The tensors of a file of weights, or of a folder that holds some, as training or a library saved it.

    `variant` chooses files such as `model.fp16.safetensors`.
    Raises SourceError that names the file and, where there is one, the tensor.
    """
    if path.is_dir():
        path = weights_in(path, variant)
        if path.is_dir():
            return read_distributed(path)
        tables = _read_file(path)
        last = rank_files(path)[-1]
        if last != path:
            _require_same(path, tables, last, _read_file(last))
        return tables
    if path.is_file():
        return _read_file(path)
    raise SourceError(f"there is no checkpoint at {path}; give a .safetensors file, or a folder that holds one")


def whose_names(weights: Path) -> str:
    """The program whose names the tensors in a file or folder of weights have; empty where they say nothing."""
    try:
        tables = read_checkpoint(weights)
    except SourceError:
        return ""
    return other_names(f"{key}.{name}".lstrip(".") for key, table in tables.items() for name in table)


def is_of_torch(folder: Path) -> bool:
    """Whether a .safetensors file in a folder says that it was saved for PyTorch, as transformers asks."""
    try:
        return any(header_notes(file).get("format") == "pt" for file in folder.glob("*.safetensors"))
    except (OSError, ValueError, AttributeError, SourceError):  # which reading them says better
        return False


def indexed_dtype(folder: Path, variant: str = "") -> torch.dtype | None:
    """The dtype of a model that the index of its shards names; None where it names none, or one of codes."""
    index = weights_in(folder, variant) if folder.is_dir() else folder
    if index.suffix != ".json":
        return None
    metadata = parsed_json(index.read_bytes()).get("metadata")
    found = getattr(torch, str(metadata.get("dtype")), None) if isinstance(metadata, dict) else None
    return found if isinstance(found, torch.dtype) and found.is_floating_point and found.itemsize > 1 else None


_OF_A_RUN = re.compile(r"(^|[._])(optim|rng)")
"""In the names of a run's state, which each rank has its own of: of its optimizer, its random numbers."""


def _require_same(file: Path, tables: Tables, other: Path, others: Tables) -> None:
    """Raise SourceError where the first or last rows of tensors of one name differ between the files of two ranks."""
    for key, table in others.items():
        mine = tables.get(key, {})
        for name, tensor in table.items():
            if name not in mine or _OF_A_RUN.search(f"{key}.{name}"):
                continue
            if not _sampled_alike(mine[name], tensor):
                raise SourceError(
                    f"{file.name} and {other.name} have other values of {name}, and do not say which part each has; "
                    "join them, or name one with --checkpoint"
                )


def _sampled_alike(one: Stored, other: Stored) -> bool:
    """Whether two tensors are of one type, with the same first and last rows."""
    if one == other:
        return True
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    rows = {0, one.shape[0] - 1} if one.shape and one.shape[0] else set[int]()
    pairs = [(one.narrowed(0, row, 1), other.narrowed(0, row, 1)) for row in rows] or [(one, other)]
    return all(torch.equal(_bytes(a), _bytes(b)) for a, b in pairs)


def _bytes(tensor: Stored) -> torch.Tensor:
    """The bytes of a tensor, which are equal where its values are, NaN among them."""
    return tensor.read(tensor.dtype).reshape(-1).view(torch.uint8)


def _read_shards(index: Path) -> dict[str, Stored]:
    """The tensors of the shards that an index names, those that it does not name among them, in the files' order.

    Raises SourceError where one is missing, or is in two shards with other values.
    """
    try:
        place = {str(name): str(file) for name, file in dict(parsed_json(index.read_bytes())["weight_map"]).items()}
    except OSError as e:
        raise SourceError(f"cannot read {index}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise SourceError(f"cannot read {index}: {_AGAIN} ({in_one_line(e)})") from e
    shards: dict[str, dict[str, Stored]] = {}
    for tensor, name in place.items():
        if name.endswith(".json"):
            raise SourceError(f"{index.name} places {tensor} in {name}, which holds no weights; fetch it again")
        if not (index.parent / name).is_file():
            raise SourceError(f"{index.name} places {tensor} in {index.parent / name}, which is missing; fetch it")
        if name not in shards:
            shards[name] = _read_file(index.parent / name)[""]
        if tensor not in shards[name]:
            raise SourceError(f"{index.name} places {tensor} in {index.parent / name}, which does not hold it")
    for name, shard in shards.items():
        for tensor, stored in shard.items():
            if not _sampled_alike(shards[place.setdefault(tensor, name)][tensor], stored):
                raise SourceError(
                    f"{tensor} is in {place[tensor]} and in {name}, with other values; one of these files of "
                    f"{index.parent} is of another checkpoint: fetch both again"
                )
    return {
        tensor: stored for name, shard in shards.items() for tensor, stored in shard.items() if place[tensor] == name
    }


def _read_file(file: Path) -> Tables:
    try:
        require_own(file)
        if file.suffix == ".json":
            return {"": _read_shards(file)}
        if file.suffix == ".safetensors" or is_safetensors(file):
            return {"": dict(_read_safetensors(file))}
        return read_ranks(file)
    except OSError as e:
        raise SourceError(f"cannot read {file}: {e.strerror or e}") from e


def read_stage_weights(file: Path) -> dict[str, Stored | Spread]:
    """The tensors of a stage's weights file, those that it links to among them, as docs/artifact.md has them.

    Raises SourceError where it, or a file that it links to, cannot be read.
    """
    stored = _read_file(file)[""]
    tensors: dict[str, Stored | Spread] = {**stored}
    aside = parsed_json(_header(file)).get(_ASIDE, {})
    for name, stride in parsed_json(aside.get("strides", "{}")).items():
        tensors[name] = Spread(stored[name], tuple(stride))
    links = parsed_json(aside.get("links", "{}"))
    files = [file.parent / name for name in links.get("files", ())]
    if gone := next((linked for linked in files if not linked.is_file()), None):
        raise SourceError(f"{file} links to {gone}, which is missing")
    for name, rows in links.get("pieces", {}).items():
        pieces = tuple(_linked(files, *row) for row in rows)
        ends = zip(*([a + n for a, n in zip(p.at, p.shape, strict=True)] for p in pieces), strict=True)
        tensors[name] = Stored(tuple(map(max, ends)), pieces)
    return tensors


def _linked(
    files: Sequence[Path], file: int, start: int, dtype: str, shape: list[int], stride: list[int] | None, at: list[int]
) -> Piece:
    steps = contiguous(shape) if stride is None else tuple(stride)
    return Piece(files[file], start, getattr(torch, dtype), tuple(shape), steps, tuple(at))


def _header(file: Path) -> bytes:
    """The JSON text at the beginning of a .safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if length > size - 8:
            raise SourceError(f"cannot read {file}: {_AGAIN} (a header of {length} bytes in a file of {size})")
        return f.read(length)


def header_notes(file: Path) -> dict[str, str]:
    """The notes of a .safetensors file beside its tensors, by name: those that are text, as the format has them."""
    found = parsed_json(_header(file)).get(_ASIDE)
    return {name: note for name, note in found.items() if isinstance(note, str)} if isinstance(found, dict) else {}


def are_of_stages(tables: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether tensors are in files of quantized weights as stages hold them, all of which say so."""
    held = (tensor for table in tables.values() for tensor in table.values() if isinstance(tensor, Stored))
    file = next((piece.file for tensor in held for piece in tensor.pieces), None)
    return file is not None and file.suffix == ".safetensors" and header_notes(file).get("format") == OF_STAGES


def _read_safetensors(file: Path) -> Iterator[tuple[str, Stored]]:
    """A JSON table of byte ranges, its length before it and the bytes behind: huggingface.co/docs/safetensors."""
    header, size = _header(file), file.stat().st_size
    try:
        table = parsed_json(header)
        entries = {
            name: (str(e["dtype"]), tuple(map(int, e["shape"])), *map(int, e["data_offsets"]))
            for name, e in table.items()
            if name != _ASIDE
        }
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as e:
        raise SourceError(f"cannot read {file}: {_AGAIN} (its header is not a table of tensors)") from e
    _check_apart(file, {name: tuple(span) for name, (_, _, *span) in entries.items()})
    for name, (spelled, shape, *span) in entries.items():
        yield name, _entry(file, name, spelled, shape, span, base=8 + len(header), end=size)


def _check_apart(file: Path, spans: Mapping[str, tuple[int, ...]]) -> None:
    """Raise SourceError where the bytes of two tensors overlap."""
    ordered = sorted((span, name) for name, span in spans.items() if span[:1] != span[1:])
    for (before, first), (after, second) in pairwise(ordered):
        if after[0] < before[-1]:
            raise SourceError(f"cannot read {file}: {_AGAIN} ({first} and {second} have bytes in common)")


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
