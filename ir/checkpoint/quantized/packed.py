"""Integers of 2 to 8 bits, packed into 32: compressed-tensors, GPTQ, AWQ; in bytes: HQQ, torchao's and ModelOpt's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch

from ir.checkpoint.quantized.scheme import Parts, PartShapes, RowAxis

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True)
class PackedRows:
    """compressed-tensors' pack-quantized: codes [rows, columns * bits / 32], scale and zeros by group of columns.

    `g_idx` [columns] is the group of each column; without it, groups are next to each other.
    """

    bits: int
    columns: int

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        scale, lowest = parts["scale"], 1 << (self.bits - 1)
        values = (unpacked(parts["codes"], self.bits)[..., : self.columns] - lowest).to(scale.dtype)
        scale, zeros = scale.reshape(scale.shape[0], -1), None
        if "zeros" in parts:
            columns = unpacked(parts["zeros"].t(), self.bits)[..., : scale.shape[0]] - lowest
            zeros = columns.t().to(scale.dtype)
        if "g_idx" in parts:
            group = parts["g_idx"].to(torch.int64)
            shifted = values if zeros is None else values - zeros[:, group]
            return shifted * scale[:, group]
        grouped = values.unflatten(-1, (scale.shape[1], -1))
        shifted = grouped if zeros is None else grouped - zeros.unsqueeze(-1)
        return (shifted * scale.unsqueeze(-1)).flatten(-2)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        if "zeros" in shapes and 32 % self.bits:
            return {}  # words of zeros do not end with rows
        axes = {"codes": RowAxis(0), "scale": RowAxis(0), "zeros": RowAxis(0, 32 // self.bits)}
        return {name: axis for name, axis in axes.items() if name in shapes}

    def __str__(self) -> str:
        return f"{self.bits} bits, packed"


@dataclass(frozen=True)
class Gptq:
    """GPTQ: codes [columns * bits / 32, rows], zeros [groups, rows * bits / 32], scale [groups, rows].

    `g_idx` [columns] is the group of each column; without it, groups are next to each other.
    With `zeros_less_one` (format 1) the stored zeros are one less than the true ones.
    """

    bits: int
    zeros_less_one: bool = True

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        scale, zeros = parts["scale"], self._zeros(parts["zeros"])[:, : parts["scale"].shape[1]]
        values = unpacked(parts["codes"].t(), self.bits).t()
        if "g_idx" in parts:
            group = parts["g_idx"].to(torch.int64)
            return (scale[group] * (values[: len(group)] - zeros[group])).t()
        return _by_group(values, zeros, scale).t()

    def _zeros(self, words: torch.Tensor) -> torch.Tensor:
        if self.zeros_less_one and 32 % self.bits:
            return (unpacked(words, self.bits) + 1) & ((1 << self.bits) - 1)
        ones = sum(1 << shift for shift in range(0, 32, self.bits)) if self.zeros_less_one else 0
        return unpacked(words + ones if ones else words, self.bits)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        if 32 % self.bits:
            return {}  # words of zeros do not end with rows
        return {"codes": RowAxis(1), "zeros": RowAxis(1, 32 // self.bits), "scale": RowAxis(1)}

    def __str__(self) -> str:
        return f"GPTQ, {self.bits} bits"


@dataclass(frozen=True)
class Awq:
    """AWQ's gemm layout: codes [columns, rows / 8], zeros [groups, rows / 8], scale [groups, rows], of 4 bits.

    They are from -8 to 7 where `signed`, else from 0 to 15.
    """

    signed: bool = False

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        values, zeros = _awq_unpacked(parts["codes"]), _awq_unpacked(parts["zeros"])
        if self.signed:
            values, zeros = (values ^ 8) - 8, (zeros ^ 8) - 8
        return _by_group(values, zeros, parts["scale"]).t()

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(1, 8), "zeros": RowAxis(1, 8), "scale": RowAxis(1)}

    def __str__(self) -> str:
        return "AWQ, 4 bits"


@dataclass(frozen=True)
class Hqq:
    """HQQ: codes of a matrix of groups, in rows or in columns, whose first rows lie in the highest bits of words.

    `scale` and `zeros` have a number a group; words are bytes, and of 3 bits of 32, which have ten numbers.
    """

    bits: int
    shape: tuple[int, ...]  # of the weight

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, scale = parts["codes"], parts["scale"]
        count = 10 if self.bits == 3 else 8 // self.bits
        shifts = range(self.bits * (count - 1), -1, -self.bits)
        values = torch.cat([(codes >> shift) & ((1 << self.bits) - 1) for shift in shifts])
        rows = prod(self.shape) // codes.shape[1]  # beyond which words are filled up
        return ((values[:rows].to(scale.dtype) - parts["zeros"]) * scale).reshape(self.shape)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {}  # words have rows of all parts of the weight

    def __str__(self) -> str:
        return f"HQQ, {self.bits} bits"


def unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The unsigned numbers in 32-bit words, the lowest bits first: [..., n] -> [..., n * 32 / bits].

    Where `bits` do not divide 32, a number may begin in one word and end in the next: 32 of them are in `bits` words.
    """
    if 32 % bits:
        return _across_words(words, bits)
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)


def _across_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    begins = [bits * i for i in range(32)]
    inside = [(1 << min(bits, 32 - begin % 32)) - 1 for begin in begins]  # the bits of a number in its first word
    places = torch.tensor(
        [
            [begin // 32 for begin in begins],
            [min(begin // 32 + 1, bits - 1) for begin in begins],
            [begin % 32 for begin in begins],
            [-begin % 32 for begin in begins],
            inside,
            [(1 << bits) - 1 - mask for mask in inside],
        ],
        dtype=torch.int32,
        device=words.device,
    )
    first, last, right, left, low, high = places.unbind()
    whole = torch.nn.functional.pad(words, (0, -words.shape[-1] % bits)).unflatten(-1, (-1, bits))
    return (((whole[..., first] >> right) & low) | ((whole[..., last] << left) & high)).flatten(-2)


def _awq_unpacked(words: torch.Tensor) -> torch.Tensor:
    shifts = torch.tensor([4 * place for place in _AWQ_ORDER], dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(-1) >> shifts) & 15).flatten(-2)


@dataclass(frozen=True)
class TorchaoInt4:
    """torchao's plain int4: codes [rows, columns / 2], two signed ones a byte, the first one lower.

    scale and zeros [groups, rows] are floats: a weight is its code times the scale, plus the zero.
    """

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, scale, zeros = parts["codes"], parts["scale"].t(), parts["zeros"].t()
        values = torch.stack([(codes << 4) >> 4, codes >> 4], -1).flatten(-2).to(scale.dtype)
        grouped = values.unflatten(-1, (scale.shape[1], -1))
        return (grouped * scale.unsqueeze(-1) + zeros.unsqueeze(-1)).flatten(-2)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0), "scale": RowAxis(1), "zeros": RowAxis(1)}

    def __str__(self) -> str:
        return "torchao, 4 bits"


@dataclass(frozen=True)
class TorchaoTiles:
    """torchao's int4 in the order of `_weight_int4pack_mm` on GPUs: codes [rows / 8, columns / 32 / n, 32, n].

    A word has 8 codes of one row; the 32 words of a tile are those of the lanes of its 8 rows, 4 each.  `scale`
    [groups, rows, 2] has scales and zeros: a weight is its code less 8, times the scale, plus the zero, in bfloat16.
    Columns beyond `columns` fill up tiles; rows do beyond `row_count`, which is 0 where tiles are full.
    """

    columns: int
    row_count: int = 0

    dims: ClassVar[int] = 4

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, (scale, zeros) = parts["codes"], parts["scale"].to(torch.float32).transpose(0, 1).unbind(-1)
        tiles = unpacked(codes, 4).unflatten(-1, (-1, 2, 2, 2)).unflatten(2, (8, 4))  # …, row, lane, word, k0, k4, k3
        values = tiles.permute(0, 2, 1, 4, 6, 7, 3, 5).flatten(2).flatten(0, 1)[: scale.shape[0]] - 8
        grouped = values.to(torch.float32).unflatten(-1, (scale.shape[1], -1))
        weight = (grouped * scale.unsqueeze(-1) + zeros.unsqueeze(-1)).flatten(-2)
        return weight[: self.row_count or None, : self.columns].to(torch.bfloat16)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0, 8), "scale": RowAxis(1)}

    def __str__(self) -> str:
        return "torchao, 4 bits in tiles"


@dataclass(frozen=True)
class ModelOptInt4:
    """ModelOpt's int4: codes [rows / 2, columns], of two rows a byte, the first one lower; scale [rows, groups].

    With `global_scale` (W4A8) the weight is rounded to FP8 times that, as kernels for activations of FP8 take it.
    """

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, scale = parts["codes"].view(torch.int8), parts["scale"].to(torch.float32)
        values = torch.stack([(codes << 4) >> 4, codes >> 4], 1).flatten(0, 1).to(torch.float32)
        weight = (values.unflatten(-1, (scale.shape[1], -1)) * scale.unsqueeze(-1)).flatten(-2)
        if "global_scale" not in parts:
            return weight
        whole, most = parts["global_scale"].to(torch.float32), torch.finfo(torch.float8_e4m3fn).max
        return (weight / whole).clamp(-most, most).to(torch.float8_e4m3fn).to(torch.float32) * whole

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0, 2), "scale": RowAxis(0)}

    def __str__(self) -> str:
        return "ModelOpt, 4 bits"


def _by_group(values: torch.Tensor, zeros: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`values` [columns, rows] with zeros and scale [groups, rows]."""
    grouped = values.unflatten(0, (scale.shape[0], -1))
    return ((grouped - zeros.unsqueeze(1)) * scale.unsqueeze(1)).flatten(0, 1)
