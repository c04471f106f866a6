"""Tensors as the front has them: a dtype, a shape and bytes.  No torch: a fault of a device cannot reach the front."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

# Bytes of an element, by dtype as torch spells it.
ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
# The dtype of the real and the imaginary part.
REAL_PARTS = {"complex64": "float32", "complex128": "float64"}
# The letters by which `struct` knows dtypes; bfloat16 and complex numbers have none.
FORMATS = {
    "bool": "?", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "int8": "b", "int16": "h", "int32": "i",
    "int64": "q", "float16": "e", "float32": "f", "float64": "d",
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


def in_real_numbers(array: Array) -> Array:
    """The array, whose complex numbers are pairs of real ones in a last dimension of 2, which have the same bytes."""
    if array.dtype not in REAL_PARTS:
        return array
    return Array(REAL_PARTS[array.dtype], (*array.shape, 2), array.data)


def in_complex_numbers(array: Array, dtype: str) -> Array:
    """The complex numbers of `dtype` in an array of such pairs; any other array as it is."""
    if array.dtype != REAL_PARTS.get(dtype) or array.shape[-1:] != (2,):
        return array
    return Array(dtype, array.shape[:-1], array.data)


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


def longer(array: Array, dim: int, size: int, value: int) -> Array:
    """The array with `value` in as many elements behind those along a dimension as make it `size` long."""
    shape = array.shape
    fill = packed(array.dtype, [value]) * ((size - shape[dim]) * prod(shape[dim + 1 :]))
    return Array(array.dtype, (*shape[:dim], size, *shape[dim + 1 :]), fill.join((*_slices(array, dim), b"")))


def shorter(array: Array, dims: Sequence[int], size: int) -> Array:
    """The first `size` elements of an array along some dimensions."""
    for dim in dims:
        shape = array.shape
        kept = nbytes_of(array.dtype, (size, *shape[dim + 1 :]))
        data = b"".join(part[:kept] for part in _slices(array, dim))
        array = Array(array.dtype, (*shape[:dim], size, *shape[dim + 1 :]), data)
    return array


def _slices(array: Array, dim: int) -> list[memoryview]:
    """The bytes of an array for each index of the dimensions before one."""
    data, step = memoryview(array.data), nbytes_of(array.dtype, array.shape[dim:])
    return [data[i * step : (i + 1) * step] for i in range(prod(array.shape[:dim]))]


def packed(dtype: str, values: Sequence[Any]) -> bytes:
    """Elements as bytes.  Raises struct.error or OverflowError for what the dtype cannot hold."""
    if dtype == "bfloat16":
        return b"".join(map(_as_bfloat16, values))
    return struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)


def values_of(array: Array) -> list[Any]:
    """The elements of an array, in row-major order."""
    if array.dtype == "bfloat16":
        halves = struct.unpack(f"<{len(array.data) // 2}H", array.data)
        return list(struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(h << 16 for h in halves))))
    return list(struct.unpack(f"<{prod(array.shape)}{FORMATS[array.dtype]}", array.data))


def _as_bfloat16(value: float) -> bytes:
    """The upper half of the float32, rounded to the nearest, ties to even."""
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    if value == value:
        bits += 0x7FFF + (bits >> 16 & 1)
    return struct.pack("<H", (bits >> 16) & 0xFFFF)
