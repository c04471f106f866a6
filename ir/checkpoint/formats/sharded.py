"""Folders of torch.distributed.checkpoint, which the processes of a job wrote together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from ir.checkpoint.formats.foreign import is_safetensors
from ir.checkpoint.formats.inert import Inert, InertUnpickler
from ir.checkpoint.formats.pickled import place_of
from ir.checkpoint.formats.torch_archive import FileSlice, unpickled
from ir.checkpoint.tensors import Piece, Stored
from ir.errors import SourceError, in_one_line

METADATA = ".metadata"


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
    return filled_by_pieces(str(folder), name, shape, pieces)


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


def filled_by_pieces(
    origin: str, name: str, shape: tuple[int, ...], pieces: Sequence[Piece], advice: str = ""
) -> Stored:
    """A tensor of pieces.  Raises SourceError, with the `advice`, where they do not fill it."""
    if sum(prod(piece.shape) for piece in pieces) != prod(shape):
        raise SourceError(f"{origin} does not have all parts of {name}, which is {list(shape)}{advice}")
    return Stored(shape, tuple(sorted((p for p in pieces if 0 not in p.shape), key=lambda p: p.at) or pieces[:1]))
