"""Weights that are computed from their stored tensors when they are read, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import lcm, prod

import torch

from ir.checkpoint.quantized.scheme import RowAxis, Scheme
from ir.checkpoint.tensors import BLOCK_ELEMENTS, Stored, Tensorlike


@dataclass(frozen=True, eq=False)
class Dequantized:
    """The weight that a scheme makes of stored tensors, in the dtype that the model has."""

    scheme: Scheme
    parts: Mapping[str, Tensorlike]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return _shape(self.scheme, tuple((name, part.shape, part.dtype) for name, part in self.parts.items()))

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        parts = {name: part.read(part.dtype) for name, part in self.parts.items()}
        return self._made(parts, dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        axes = self.scheme.rows({name: part.shape for name, part in self.parts.items()})
        rows, *others = self.shape
        step = lcm(*(axis.rows for axis in axes.values()))
        step *= max(1, BLOCK_ELEMENTS // (step * prod(others))) if axes else rows
        held = {name: part for name, part in self.parts.items() if name not in axes or axes[name].dim}
        whole = {name: part.read(part.dtype) for name, part in held.items()}  # packed, or small
        for first in range(0, rows, step):
            last = min(first + step, rows)
            cut = {name: _rows(whole.get(name, self.parts[name]), axis, first, last) for name, axis in axes.items()}
            yield self._made({**whole, **cut}, dtype).flatten()

    def _made(self, parts: Mapping[str, torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        return self.scheme.dequantize(parts).to(self.dtype).to(dtype).contiguous()


def _rows(part: Tensorlike | torch.Tensor, axis: RowAxis, first: int, last: int) -> torch.Tensor:
    """The part of a stored tensor that holds the weight's rows from `first` to `last`."""
    start, count = first // axis.rows, -(-last // axis.rows) - first // axis.rows
    if isinstance(part, Stored):
        return part.narrowed(axis.dim, start, count).read(part.dtype)
    whole = part if isinstance(part, torch.Tensor) else part.read(part.dtype)
    return whole.narrow(axis.dim, start, count)


@lru_cache(maxsize=4096)
def _shape(scheme: Scheme, parts: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]) -> tuple[int, ...]:
    empty = {name: torch.empty(shape, dtype=dtype, device="meta") for name, shape, dtype in parts}
    return tuple(scheme.dequantize(empty).shape)
