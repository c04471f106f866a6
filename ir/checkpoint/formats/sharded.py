"""Checkpoints that the processes of a job wrote together: torch.distributed.checkpoint, and a file of each rank."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from ir.checkpoint.formats.foreign import is_safetensors
from ir.checkpoint.formats.inert import Inert, InertUnpickler
from ir.checkpoint.formats.pickled import FileEntries, RankPart, place_of, read_pickled
from ir.checkpoint.formats.torch_archive import FileSlice, unpickled
from ir.checkpoint.tensors import Piece, Stored
from ir.errors import SourceError, in_one_line

METADATA = ".metadata"
_RANK = re.compile(r"(.*?rank[_-]?)(\d+)(\D*)")


def read_distributed(folder: Path) -> dict[str, dict[str, Stored]]:
    """The tensors of a folder of torch.distributed.checkpoint, in the dicts that were saved; nothing is copied.

    Raises SourceError where it is damaged, or incomplete.
    """
    metadata = _metadata(folder / METADATA)
    tensors, stored = metadata.field("state_dict_metadata"), metadata.field("storage_data")
    if not isinstance(tensors, dict) or not isinstance(stored, dict):
        raise SourceError(f"cannot read {folder / METADATA}: it lists no tensors")
    places = {(key.field("fqn"), tuple(key.field("offset") or ())): info for key, info in stored.items()}
    paths = metadata.field("planner_data")
    tables: dict[str, dict[str, Stored]] = {"": {}}
    for name, meta in tensors.items():
        if isinstance(meta.field("chunks"), list):
            *above, last = _path(paths, name)
            tables.setdefault(".".join(above), {})[last] = _joined(folder, name, meta, places)
    return tables


def _path(paths: Any, name: str) -> tuple[str, ...]:
    """The keys of the dicts in which a tensor was, which torch joins to a name."""
    found = paths.get(name) if isinstance(paths, Mapping) else None
    return tuple(map(str, found)) if isinstance(found, tuple) and found else (name,)


def _metadata(file: Path) -> Inert:
    try:
        with file.open("rb") as opened:
            found = InertUnpickler(opened).load()
    except OSError as e:
        raise SourceError(f"cannot read {file}: {e.strerror}") from e
    except Exception as e:  # an unpickler raises anything for bytes that are no pickle
        raise SourceError(f"cannot read {file}: it is damaged ({in_one_line(e)})") from e
    if not isinstance(found, Inert):
        raise SourceError(f"cannot read {file}: it is not what torch.distributed.checkpoint writes")
    return found


def _joined(folder: Path, name: str, meta: Inert, places: Mapping[Any, Any]) -> Stored:
    """A tensor of the chunks that processes wrote."""
    shape, pieces = tuple(meta.field("size")), list[Piece]()
    for chunk in meta.field("chunks"):
        at = tuple(chunk.field("offsets"))
        info = places.get((name, at)) or places.get((name, ()))
        if info is None:
            raise SourceError(f"{folder} lacks the part of {name} at {list(at)}; it was not saved whole")
        if info.field("transform_descriptors"):
            raise SourceError(f"{folder} is compressed, which is not read; save it without")
        whole = _item(folder / str(info.field("relative_path")), name, info.field("offset"), info.field("length"))
        if whole.shape != (size := tuple(chunk.field("sizes"))):
            raise SourceError(f"{name} in {folder} is {list(whole.shape)}; its metadata says {list(size)}")
        pieces += [replace(piece, at=at) for piece in whole.pieces]
    return _complete(str(folder), name, shape, pieces)


def _item(file: Path, name: str, start: int, length: int) -> Stored:
    """A tensor that torch.save wrote into a part of a file."""
    try:
        if is_safetensors(file):
            raise SourceError(
                f"{file} has its tensors in safetensors, which is not read in such a folder; save it without "
                "SerializationFormat.SAFETENSORS"
            )
        with file.open("rb") as opened:
            tensor = unpickled(file, FileSlice(opened, start, length))
    except OSError as e:
        raise SourceError(f"cannot read {file}, which holds {name}: {e.strerror or e}") from e
    if not isinstance(tensor, torch.Tensor):
        raise SourceError(f"{name} in {file} is a {type(tensor).__name__}, not a tensor")
    return place_of(file, name, tensor, start)


def _complete(origin: str, name: str, shape: tuple[int, ...], pieces: Sequence[Piece]) -> Stored:
    """A tensor of pieces.  Raises SourceError where they do not fill it."""
    if sum(prod(piece.shape) for piece in pieces) != prod(shape):
        raise SourceError(f"{origin} does not have all parts of {name}, which is {list(shape)}")
    return Stored(shape, tuple(sorted((p for p in pieces if 0 not in p.shape), key=lambda p: p.at) or pieces[:1]))


# ---- a file of each rank


def rank_files(file: Path) -> list[Path]:
    """The files of all ranks, where the name of one has the number of its rank."""
    if (named := _RANK.fullmatch(file.name)) is None:
        return [file]
    begin, _, end = named.groups()
    pattern = re.compile(rf"{re.escape(begin)}(\d+){re.escape(end)}")
    matches = ((other, pattern.fullmatch(other.name)) for other in file.parent.iterdir())
    return [other for _, other in sorted((int(m[1]), other) for other, m in matches if m)]


def read_ranks(file: Path) -> dict[str, dict[str, Stored]]:
    """The tensors of a file of torch.save; those that it has a part of are joined with the files of the other ranks.

    Raises SourceError where parts are missing.
    """
    entries = read_pickled(file)
    if not any(isinstance(entry, RankPart) for table in entries.values() for entry in table.values()):
        return {key: dict(_whole(table)) for key, table in entries.items()}
    ranks = [read_pickled(other) for other in rank_files(file)]
    return {key: {name: _of_ranks(file, ranks, key, name) for name in table} for key, table in entries.items()}


def _whole(table: Mapping[str, Any]) -> Iterator[tuple[str, Stored]]:
    return ((name, entry) for name, entry in table.items() if isinstance(entry, Stored))


def _of_ranks(file: Path, ranks: Sequence[FileEntries], key: str, name: str) -> Stored:
    parts = [rank.get(key, {}).get(name) for rank in ranks]
    mine = [part for part in parts if isinstance(part, RankPart)]
    if not mine:
        found = next(part for part in parts if isinstance(part, Stored))
        return found
    counts = [1 + max(place) for place in zip(*(part.coordinate for part in mine), strict=True)]
    boxes: dict[tuple[int, ...], Piece] = {}
    for part in mine:
        for piece in part.local.pieces:
            boxes.setdefault(_corner(part, counts), replace(piece, at=_corner(part, counts)))
    whole = _complete(f"{file}, with the files of the other ranks,", name, mine[0].shape, list(boxes.values()))
    if not all(_in_order(part, counts) for part in mine):
        raise SourceError(f"{name} in {file} is divided in an order that is not known; gather it before saving")
    return whole


def _in_order(part: RankPart, counts: Sequence[int]) -> bool:
    """Whether dimensions of the mesh that divide after others do so after all later ones, and one for a dimension."""
    dims = part.sharded
    strided = [dim for dim, after in zip(dims, part.after, strict=True) if after]
    later = [
        prod(n for n, other in zip(counts[i + 1 :], dims[i + 1 :], strict=True) if other == dims[i])
        for i in range(len(dims))
    ]
    return len({*strided}) == len(strided) and all(n in (0, m) for n, m in zip(part.after, later, strict=True))


def _corner(part: RankPart, counts: Sequence[int]) -> tuple[int, ...]:
    """The first index of a part in each dimension: the mesh divides a dimension into equal parts, but for the last."""
    at, size = [0] * len(part.shape), list(part.shape)
    divided = zip(part.coordinate, counts, part.sharded, part.after, strict=True)
    for place, count, dim, _ in sorted(divided, key=lambda of_mesh: of_mesh[3] > 0):
        if dim is not None:
            step = -(-size[dim] // count)
            first = min(step * place, size[dim])
            at[dim], size[dim] = at[dim] + first, min(step, size[dim] - first)
    return tuple(at)
