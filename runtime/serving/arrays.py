"""Tensors as the front has them: a dtype, a shape and bytes.  No torch: a fault of a device cannot reach the front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

# Bytes of an element, by dtype as torch spells it.
ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Array:
    """A dense tensor: its dtype as torch spells it, its shape, and its elements in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def nbytes_of(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor of this dtype and shape."""
    return ITEM_BYTES[dtype] * prod(shape)


def rows_joined(parts: Sequence[Array]) -> Array:
    """The parts along their first dimension; their other dimensions and dtypes are equal."""
    if len(parts) == 1:
        return parts[0]
    rows = sum(part.shape[0] for part in parts)
    return Array(parts[0].dtype, (rows, *parts[0].shape[1:]), b"".join(part.data for part in parts))


def split_rows(array: Array, counts: Sequence[int]) -> list[Array]:
    """The parts of an array that have these numbers of rows, in order."""
    data, row, at = memoryview(array.data), nbytes_of(array.dtype, array.shape[1:]), 0
    parts = []
    for count in counts:
        parts.append(Array(array.dtype, (count, *array.shape[1:]), data[at : at + count * row]))
        at += count * row
    return parts
