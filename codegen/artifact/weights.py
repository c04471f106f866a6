"""The .safetensors file of a stage: copies of its tensors, or links to their bytes in the checkpoint's files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from zlib import crc32

import torch

from ir.checkpoint.files import SAFETENSORS_DTYPES
from ir.checkpoint.tensors import Held, Piece, Spread, Stored, Tensorlike, byte_view
from ir.errors import OutputError, SourceError

Wrote: TypeAlias = Callable[[int], object]
Sums: TypeAlias = Mapping[str, str]  # crc32 of the bytes of tensors that were written, in hexadecimal
_SPELLED = {dtype: text for text, dtype in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class StageTensor:
    """A tensor of a stage: its source, and its dtype in the stage."""

    source: Tensorlike
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return prod(self.source.shape) * self.dtype.itemsize


def write_copies(
    path: Path, weights: Mapping[str, StageTensor], wrote: Wrote = int, form: str = ""
) -> tuple[str, Sums]:
    """Write copies of the tensors, with one at a time in memory.  Returns the file's sha256, and the tensors' sums.

    `wrote` is called with the number of bytes of each block; `form` is that of the file, as its header's `format` says.
    The format has no strides; those of channels-last weights are in the header's `strides`, for `load`.
    Raises OutputError where the file cannot be written, SourceError where a tensor cannot be read.
    """
    strides = strides_of(weights)
    notes = {"format": form, "strides": json.dumps(strides) if strides else ""}
    return _write(path, weights, {name: note for name, note in notes.items() if note}, wrote)


def strides_of(weights: Mapping[str, StageTensor]) -> dict[str, tuple[int, ...]]:
    """The strides of the tensors that are not contiguous: channels last, transposed."""
    strides = {name: _stride(w.source) for name, w in weights.items()}
    return {name: stride for name, stride in strides.items() if stride is not None}


def _stride(source: Tensorlike) -> tuple[int, ...] | None:
    match source:
        case Held(tensor):
            dense = torch.empty_like(tensor, device="meta")
            return None if dense.is_contiguous() else dense.stride()
        case Spread(stride=stride):
            return stride
    return None


def write_links(path: Path, weights: Mapping[str, StageTensor], wrote: Wrote = int) -> tuple[str, Sums]:
    """Write the tensors that the checkpoint lacks, and links to the others.  Returns as `write_copies` does.

    The header's `links` has the files, relative to this one's folder, the dtypes of floating-point tensors in the
    stage, and for each tensor its pieces: a file, the byte where it starts, its dtype, shape and strides (null:
    plain), and the corner of the box it fills.
    """
    linked = {name: w.source for name, w in weights.items() if isinstance(w.source, Stored) and w.source.is_as_stored}
    own = {name: w for name, w in weights.items() if name not in linked}
    pieces = {name: source.pieces for name, source in linked.items()}
    files = linked_files(weights)
    number = {file: i for i, file in enumerate(files)}
    links = {
        "files": [path_from(path.parent, file) for file in files],
        "dtypes": {name: _dtype_name(w.dtype) for name, w in weights.items() if w.dtype.is_floating_point},
        "pieces": {name: [_row(piece, number) for piece in tiles] for name, tiles in pieces.items()},
    }
    return _write(path, own, {"links": json.dumps(links, separators=(",", ":"))}, wrote)


def linked_files(weights: Mapping[str, StageTensor]) -> tuple[Path, ...]:
    """The checkpoint's files that hold the tensors."""
    stored = [w.source for w in weights.values() if isinstance(w.source, Stored)]
    return tuple(dict.fromkeys(piece.file for source in stored for piece in source.pieces))


def path_from(folder: Path, file: Path) -> str:
    """The path of a file relative to a folder; symbolic links of folders are resolved."""
    return os.path.relpath(file.parent.resolve() / file.name, folder.resolve())


def _row(piece: Piece, number: Mapping[Path, int]) -> list[Any]:
    stride = None if piece.plain else piece.stride
    return [number[piece.file], piece.start, _dtype_name(piece.dtype), piece.shape, stride, piece.at]


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _write(
    path: Path, weights: Mapping[str, StageTensor], metadata: Mapping[str, str], wrote: Wrote
) -> tuple[str, Sums]:
    # Wide dtypes first, so that each tensor is aligned to its own: readers that map the file ask for it.
    order = sorted(weights.items(), key=lambda item: -item[1].dtype.itemsize)
    digest, name, sums = sha256(), "the header", dict.fromkeys(weights, 0)
    try:
        with path.open("wb") as file:
            _put(file, digest, _header(dict(order), metadata))
            for name, weight in order:
                for block in _blocks(name, weight):
                    data = byte_view(block.contiguous())
                    sums[name] = crc32(data, sums[name])
                    _put(file, digest, data)
                    wrote(block.nbytes)
    except OSError as e:
        need = sum(w.nbytes for w in weights.values())
        raise OutputError(f"cannot write {name} to {path.name}: {e.strerror}; the file needs {need:,} bytes") from e
    return digest.hexdigest(), {name: f"{total:08x}" for name, total in sums.items()}


def _put(file: BinaryIO, digest: Any, data: bytes | memoryview) -> None:
    digest.update(data)
    file.write(data)


def _header(weights: Mapping[str, StageTensor], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, weight in weights.items():
        start, end = end, end + weight.nbytes
        shape = list(weight.source.shape)
        table[name] = {"dtype": _SPELLED[weight.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(name: str, weight: StageTensor) -> Iterator[torch.Tensor]:
    try:
        yield from weight.source.blocks(weight.dtype)
    except SourceError as e:
        raise SourceError(f"{name}: {e}") from e
