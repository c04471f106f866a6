"""Sizes as expressions over symbols, the tensor types that they make up, the sizes of calls, and layouts in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, TypeAlias

import sympy
import torch

Dim: TypeAlias = int | sympy.Expr
"""A size: a number, or an expression over the graph's symbols."""


@dataclass(frozen=True)
class TensorType:
    """Shape and dtype of a tensor."""

    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @cached_property
    def numel(self) -> Dim:
        return prod(self.shape)

    @cached_property
    def nbytes(self) -> Dim:
        return self.numel * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}[{', '.join(map(_text, self.shape))}]"


@dataclass(frozen=True)
class CallSizes:
    """The sizes of a call, and the share of all calls that have them."""

    sizes: Mapping[sympy.Symbol, int]
    share: float = 1.0


@lru_cache(maxsize=1 << 16)  # as below
def _text(dim: Dim) -> str:
    return str(dim)


def in_layout(tensor: torch.Tensor, layout: Sequence[int]) -> torch.Tensor:
    """A tensor as one that is dense in memory, with its dimensions in this order, the outermost first."""
    return tensor.permute(tuple(layout)).contiguous().permute(tuple(map(layout.index, range(tensor.dim()))))


def at(dim: Dim, sizes: Mapping[sympy.Symbol, int]) -> int:
    """A size as a number."""
    return dim if isinstance(dim, int) else int(bound(dim, sizes))


def bound(expr: sympy.Basic, sizes: Mapping[sympy.Symbol, int]) -> Any:
    """An expression with numbers in place of symbols."""
    return _bound(expr, tuple(sizes.items()))


@lru_cache(maxsize=1 << 16)  # a graph has few expressions, each in many of its types and costs
def _bound(expr: sympy.Basic, sizes: tuple[tuple[Any, int], ...]) -> Any:
    return expr.subs(sizes)


def hold(guards: Iterable[sympy.Basic], sizes: Mapping[Any, int]) -> bool:
    """Whether all conditions hold at `sizes`.

    A condition that divides by zero there does not hold, nor one that takes the remainder of a negative number.
    """
    try:
        return all(bound(guard, sizes) == sympy.true for guard in guards)
    except (ZeroDivisionError, AssertionError):  # the latter of torch's own Mod
        return False
