"""Codes that are numbers of their own dtype, times scales: fp8 and int8, by tensor, channel, group or block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch._C import DisableTorchFunction

from ir.checkpoint.quantized.scaled_operator import DEQUANTIZED
from ir.checkpoint.quantized.scheme import Parts, PartShapes, RowAxis, Scheme


@dataclass(frozen=True)
class Scaled:
    """`codes` [rows, columns] (or [experts, rows, columns]) times `scale`, less `zeros` if there are any.

    A scale has one element, or in each dimension 1, one for each index, or one for each block.  `block` is the size of
    a block in the last two dimensions, the last of which may be smaller; else blocks divide the codes evenly.
    With `wide` it computes in float32, as transformers does, else in the scale's dtype, as compressed-tensors does.
    """

    block: tuple[int, int] | None = None
    wide: bool = True

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        codes, scale = parts["codes"], decoded_scale(parts["scale"])
        dtype = torch.float32 if self.wide else scale.dtype
        steps = self.steps(tuple(codes.shape), tuple(scale.shape))
        values = codes.to(dtype)
        if "zeros" in parts:
            values = values - _spread(parts["zeros"].to(dtype), steps, tuple(codes.shape))
        if not all(n % step == 0 for n, step in zip(codes.shape, steps, strict=True)):
            return values * _spread(scale.to(dtype), steps, tuple(codes.shape))
        return blocks_times(values, scale.to(dtype), steps)

    def in_graphs(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        codes, scale = parts["codes"], parts["scale"]
        with DisableTorchFunction():  # an export would go through all its modes at each look
            one_operator = "zeros" not in parts and codes.ndim == self.dims
            is_encoded = scale.dtype.itemsize == 1
            shapes = tuple(codes.shape), tuple(scale.shape)
        if not one_operator:
            return self.dequantize(parts).to(dtype)
        scale = decoded_scale(scale) if is_encoded else scale
        return DEQUANTIZED(codes, scale.to(torch.float32) if self.wide else scale, [*self.steps(*shapes)], dtype)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        codes = shapes["codes"]
        step = self.steps(codes, shapes["scale"])[0]
        blocks = step < codes[0] or (self.block is not None and step == self.block[0])
        own = {"scale": RowAxis(0, step), "zeros": RowAxis(0, step)} if blocks else {}
        return {"codes": RowAxis(0), **{name: axis for name, axis in own.items() if name in shapes}}

    def steps(self, codes: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...]:
        """The number of codes that share a scale, in each dimension."""
        if len(scale) < len(codes):
            scale = (*scale, *(1,) * (len(codes) - len(scale)))
        named = (*(1,) * (len(codes) - 2), *self.block) if self.block else (0,) * len(codes)
        return tuple(
            min(n, size) if size and -(-n // size) == count else -(-n // count)
            for n, count, size in zip(codes, scale, named, strict=True)
        )

    def __str__(self) -> str:
        return f"blocks of {self.block[0]} x {self.block[1]}" if self.block else "scales by tensor, channel or group"


@dataclass(frozen=True)
class Swizzled:
    """The weight of `inner`, whose scales [rows, groups] are stored in the order in which tensor cores take them.

    Tiles of 128 rows and 4 groups follow each other, the last ones filled up; in one, row `32 * i + j` has place `i` of
    four in line `j` of 32.
    """

    inner: Scheme
    groups: int

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        rows, across = parts["codes"].shape[0], -(-self.groups // 4)
        lines = parts["scale"].reshape(-1, across, 32, 4, 4).permute(0, 3, 2, 1, 4)
        scale = lines.reshape(-1, across * 4)[:rows, : self.groups]
        return self.inner.dequantize({**parts, "scale": scale})

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {}  # tiles do not end with rows

    def __str__(self) -> str:
        return f"{self.inner}, scales in tiles"


def decoded_scale(scale: torch.Tensor) -> torch.Tensor:
    """A scale as a number: exponents of two (E8M0, also in bytes) are float32."""
    if scale.dtype == torch.uint8:
        return torch.exp2(scale.to(torch.float32) - 127)
    return scale.to(torch.float32) if scale.dtype.itemsize == 1 else scale


def blocks_times(values: torch.Tensor, scale: torch.Tensor, steps: tuple[int, ...]) -> torch.Tensor:
    """Values times the scale of the block that each is in; `steps` divide the values' sizes."""
    counts = (*scale.shape, *(1,) * (len(steps) - scale.ndim))
    inside: list[int] = []
    places: list[int] = []
    for n, step, count in zip(values.shape, steps, counts, strict=True):
        inside += [count, step] if 1 < step < n else [n]
        places += [count, 1] if 1 < step < n else [count]
    return (values.reshape(inside) * scale.reshape(places)).reshape(values.shape)


def _spread(scale: torch.Tensor, steps: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """The scale of each value."""
    scale = scale.reshape(*scale.shape, *(1,) * (len(steps) - scale.ndim))
    for dim, (step, n) in enumerate(zip(steps, shape, strict=True)):
        if 1 < step < n:
            scale = scale.repeat_interleave(step, dim).narrow(dim, 0, n)
    return scale
