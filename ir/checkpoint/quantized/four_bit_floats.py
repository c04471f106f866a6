"""Two numbers of four bits a byte, from a table of 16: FP4 with block scales (NVFP4, MXFP4), and bitsandbytes' NF4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch

from ir.checkpoint.quantized.scaled import blocks_times, decoded_scale
from ir.checkpoint.quantized.scheme import Parts, PartShapes, RowAxis

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The numbers with two bits of exponent and one of mantissa, by their codes."""


@dataclass(frozen=True)
class Fp4:
    """`codes` [rows, columns / 2] of E2M1, the lower four bits first, times `scale` [rows, groups].

    The scale of an NVFP4 weight is multiplied with `global_scale`, as ModelOpt has it, or with `divided` divided by it,
    as compressed-tensors has it, whose weights are bfloat16.
    """

    divided: bool = False

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, scale = parts["codes"].view(torch.uint8), decoded_scale(parts["scale"]).to(torch.float32)
        if "global_scale" in parts:
            whole = parts["global_scale"].to(torch.float32)
            scale = scale / whole if self.divided else scale * whole
        values = _looked_up(_low_first(codes), torch.tensor(_E2M1, device=codes.device))
        steps = tuple(n // count for n, count in zip(values.shape, scale.shape, strict=True))
        weight = blocks_times(values, scale, steps)
        return weight.to(torch.bfloat16) if self.divided else weight

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0), "scale": RowAxis(0)}

    def __str__(self) -> str:
        return "FP4 with block scales"


@dataclass(frozen=True)
class Mxfp4Experts:
    """gpt-oss: `codes` [experts, columns, groups, 16] and `scale` [experts, columns, groups], exponents of two.

    The weight is [experts, groups * 32, columns], in bfloat16.
    """

    dims: ClassVar[int] = 3

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, exponent = parts["codes"], parts["scale"].to(torch.int32) - 127
        table = torch.tensor(_E2M1, dtype=torch.bfloat16, device=codes.device)
        values = torch.ldexp(_looked_up(_low_first(codes), table), exponent.unsqueeze(-1))
        return values.flatten(-2).transpose(-1, -2)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0), "scale": RowAxis(0)}

    def __str__(self) -> str:
        return "MXFP4"


@dataclass(frozen=True)
class BitsAndBytes4Bit:
    """bitsandbytes' NF4 and FP4: `codes` of all elements, the upper four bits first, looked up in `table`.

    `absmax` has the scale of each `block` of elements; where it is quantized itself, `nested_table` and
    `nested_absmax`, of blocks of `nested_block`, give it, plus `offset`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    block: int
    nested_block: int = 0
    offset: float = 0.0

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, absmax = parts["codes"].flatten().view(torch.uint8), parts["absmax"]
        if self.nested_block:
            nested = _looked_up(absmax, parts["nested_table"])
            absmax = _in_blocks(nested, parts["nested_absmax"], self.nested_block) + self.offset
        places = torch.stack([codes >> 4, codes & 15], dim=-1).flatten()[: prod(self.shape)]
        values = _in_blocks(_looked_up(places, parts["table"]), absmax.to(torch.float32), self.block)
        return values.reshape(self.shape).to(self.dtype)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {}  # blocks do not end with rows

    def __str__(self) -> str:
        return "bitsandbytes, 4 bits"


@dataclass(frozen=True)
class BitsAndBytes8Bit:
    """bitsandbytes' int8: `codes` [rows, columns] times `scale` [rows], the largest value of a row, over 127."""

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        return parts["codes"] * parts["scale"].view(-1, 1) * 7.874015718698502e-3

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {"codes": RowAxis(0), "scale": RowAxis(0)}

    def __str__(self) -> str:
        return "bitsandbytes, 8 bits"


def _low_first(codes: torch.Tensor) -> torch.Tensor:
    """The four-bit codes of bytes: [..., n] -> [..., 2 * n]."""
    return torch.stack([codes & 15, codes >> 4], dim=-1).flatten(-2)


def _looked_up(codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    return table[codes.to(torch.int32)]


def _in_blocks(values: torch.Tensor, scale: torch.Tensor, block: int) -> torch.Tensor:
    """Flat values times the scale of their block, the last of which may be smaller."""
    if values.numel() % block:
        return values * scale.repeat_interleave(block)[: values.numel()]
    return (values.view(-1, block) * scale.view(-1, 1)).flatten()
