"""Files of torch.save -> the tables in them, with the place of each tensor."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ir.checkpoint.formats.inert import Inert
from ir.checkpoint.formats.legacy import is_legacy, read_legacy
from ir.checkpoint.formats.torch_archive import ZIP, read_archive
from ir.checkpoint.tensors import Change, Stored
from ir.errors import SourceError


@dataclass(frozen=True)
class RankPart:
    """The part of a distributed tensor (DTensor) that one process of a job saved.

    `coordinate` is the place of the process in the mesh, `sharded` the dimension of the tensor that each dimension of
    the mesh divides, or None where all have the whole.  `after`: for a dimension of the mesh that divides what later
    ones have divided, as FSDP does the parts of tensor parallelism, into how many parts they did; else 0.
    """

    local: Stored
    shape: tuple[int, ...]
    coordinate: tuple[int, ...]
    sharded: tuple[int | None, ...]
    after: tuple[int, ...]


Entry: TypeAlias = Stored | RankPart
FileEntries: TypeAlias = dict[str, dict[str, Entry]]
"""The entries of a file by name, in each of its dicts; "" is the file itself, "model" a dict under that key in it."""


def read_pickled(file: Path) -> FileEntries:
    """The tables of a file of torch.save.  Raises SourceError where it holds no table of tensors."""
    with file.open("rb") as opened:
        begin = opened.read(len(ZIP))
        if is_legacy(opened):
            table = read_legacy(file, opened)
        elif begin.startswith(ZIP) and zipfile.is_zipfile(file):
            table = read_archive(file, opened)
        elif begin.startswith(b"\x80"):
            raise SourceError(
                f"cannot read {file}: it is a pickle that torch.save did not write; save its tensors as .safetensors"
            )
        else:
            raise SourceError(
                f"cannot read {file}: it is damaged, or was not fetched whole; fetch it again; or save it again, as "
                ".safetensors"
            )
    if isinstance(table, Inert) and (inside := _of_module(table)):
        table = inside
    if isinstance(table, Inert):
        raise SourceError(f"{file} holds a {table.origin}, which is code and is not run; save its state dict")
    held = _numbered(table)
    found = dict(_tables(file, "", held, (id(table),))) if isinstance(held, dict) else {}
    if not found and not isinstance(table, dict):
        kind = "tensor" if isinstance(table, torch.Tensor) else type(table).__name__
        raise SourceError(f"{file} holds a {kind}, not a table of tensors by name")
    if not found and _has_arrays(table):
        raise SourceError(f"{file} holds arrays of numpy, not tensors: torch.from_numpy makes them of these")
    return {"": {}, **found}


def _has_arrays(table: dict[Any, Any], around: tuple[int, ...] = ()) -> bool:
    """Whether a dict, or one in it, has an array of numpy.  `around`: the ids of the dicts that hold it."""
    inner, around = list(table.values()), (*around, id(table))
    return any(isinstance(x, Inert) and x.origin.startswith("numpy.") for x in inner) or any(
        _has_arrays(x, around) for x in inner if isinstance(x, dict) and id(x) not in around
    )


def _of_module(module: Inert) -> dict[str, Any]:
    """The parameters and buffers of a pickled nn.Module, by the names that its state dict would have."""
    found = dict[str, Any]()
    for kind in ("_parameters", "_buffers"):
        found |= {name: t for name, t in (module.field(kind) or {}).items() if isinstance(t, torch.Tensor)}
    for name, inner in (module.field("_modules") or {}).items():
        if isinstance(inner, Inert):
            found |= {f"{name}.{rest}": tensor for rest, tensor in _of_module(inner).items()}
    return found


def _tables(
    file: Path, path: str, table: Mapping[Any, Any], around: tuple[int, ...] = ()
) -> Iterator[tuple[str, dict[str, Entry]]]:
    """The tensors of a dict, and those of the dicts, lists and modules in it.

    `around`: the ids of what holds the dict, as one may hold itself.
    """
    values = (part for key, x in table.items() for part in _parts(file, str(key), x))
    under = f"{path}." if path else ""
    if entries := {name: entry for name, x in values if (entry := _entry(file, name, x, under)) is not None}:
        yield path, dict(_with_versions(entries, getattr(table, "_metadata", None)))
    for key, inner in table.items():
        held = _of_module(inner) if isinstance(inner, Inert) else _numbered(inner)
        if isinstance(held, dict) and held and id(inner) not in around:
            yield from _tables(file, f"{path}.{key}".lstrip("."), held, (*around, id(inner)))


def _with_versions(entries: Mapping[str, Entry], metadata: Any) -> Iterator[tuple[str, Entry]]:
    """The tensors with the versions that a state dict has beside its items, for each module."""
    said = metadata if isinstance(metadata, dict) else {}
    versions = {path: x.get("version") for path, x in said.items() if isinstance(x, dict)}
    for name, entry in entries.items():
        parts = name.split(".")
        around = tuple(versions.get(".".join(parts[:i])) for i in range(len(parts)))
        yield name, replace(entry, versions=around) if versions and isinstance(entry, Stored) else entry


def _numbered(held: Any) -> Any:
    """The items of a list or tuple that may hold tables, by their numbers; anything else as it is."""
    if type(held) not in (list, tuple):
        return held
    return {i: item for i, item in enumerate(held) if isinstance(item, (dict, list, tuple, Inert))}


def _parts(file: Path, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The tensors inside of one of a library's class, by the names that torchao gives them in safetensors.

    Any other value as it is.  Raises SourceError for a class that holds other objects, or how inputs are quantized.
    """
    if not isinstance(value, Inert) or value.origin != _WRAPPED or value.field("_local_tensor") is not None:
        yield name, value
        return
    held = value.state if isinstance(value.state, dict) else {}
    inside = {part: x for part, x in held.items() if isinstance(x, torch.Tensor)}
    if not inside or any(value.field(name) is not None for name in _OF_INPUTS):
        named = getattr(next(iter(value.args), value), "origin", value.origin)
        if named.endswith("ShardedTensor"):
            raise SourceError(
                f"{name} in {file} is the part that one rank of FSDP has, which is not joined with others; save the "
                "state dict with torch.distributed.checkpoint, or with StateDictType.FULL_STATE_DICT"
            )
        raise SourceError(f"{name} in {file} is a {named}, which is code and is not run; {_AS_PLAIN}")
    module, dot, last = name.rpartition(".")
    yield from ((f"{module}{dot}_{last}_{part}", x) for part, x in inside.items())


_OF_INPUTS = ("act_quant_kwargs", "activation_quantization")
_WRAPPED = "torch._utils._rebuild_wrapper_subclass"
_AS_PLAIN = "save the model dequantized, or as .safetensors with save_pretrained"


def _entry(file: Path, name: str, value: Any, under: str = "") -> Entry | None:
    """A tensor of a table, whose names begin with `under`; None for anything else."""
    match value:
        case torch.Tensor():
            return place_of(file, name, value)
        case Inert(state={"_local_tensor": torch.Tensor() as local, "_spec": Inert() as spec}):
            return _part(file, name, place_of(file, name, local), spec)
        case Inert(origin="torch._utils._rebuild_sparse_tensor"):
            raise SourceError(f"{name} in {file} is sparse; save it dense")
        case Inert(origin="torch._utils._rebuild_device_tensor_from_numpy"):
            raise SourceError(
                f"{under}{name} in {file} was saved from a device of another kind; move it to the CPU first"
            )
        case Inert(origin="torch._utils._rebuild_qtensor"):
            raise SourceError(f"{under}{name} in {file} is quantized by torch.ao; save the model as it was before")
    return None


def _part(file: Path, name: str, local: Stored, spec: Inert) -> RankPart:
    mesh: Inert = spec.field("mesh")
    meta, placements = spec.field("tensor_meta"), spec.field("placements")
    kinds = {placement.origin.rpartition(".")[2] for placement in placements}
    if not kinds <= {"Shard", "_StridedShard", "Replicate"}:
        raise SourceError(f"{name} in {file} is distributed as {', '.join(sorted(kinds))}; gather it before saving")
    sharded = tuple(placement.field("dim") for placement in placements)
    after = tuple(int(placement.field("split_factor") or 0) for placement in placements)
    return RankPart(local, tuple(meta.args[0]), tuple(mesh.field("_coordinate_on_dim") or ()), sharded, after)


def place_of(file: Path, name: str, tensor: torch.Tensor, base: int = 0) -> Stored:
    """The place of a fake tensor's bytes in a file, whose part from the byte `base` on it was read from.

    Raises SourceError for a tensor without such a place.
    """
    offset = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
    if offset is None:
        raise SourceError(f"{name} in {file} has no values: it was saved on the meta device")
    start = base + offset + int(tensor.storage_offset()) * tensor.dtype.itemsize
    change: Change = "negative" if tensor.is_neg() else "conjugate" if tensor.is_conj() else "none"
    return Stored.whole(file, start, tensor.dtype, tensor.shape, tensor.stride(), change)
