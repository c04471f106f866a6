"""Sizes as expressions over symbols, the tensor types that they make up, the sizes of calls, and layouts in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, TypeAlias

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod, PythonMod

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


@dataclass(frozen=True)
class ValueCount:
    """The number of elements of an input that must have a value, as placeholders of images among token ids.

    Where `images` names an input `[texts, images, …]`, there are so many for each of its images that is not all zeros.
    """

    input: str  # its name
    value: int
    count: Dim
    images: str = ""

    def __str__(self) -> str:
        return f"{self.count} of {self.input} are {self.value}" + (
            f", for each of {self.images}" if self.images else ""
        )


@dataclass(frozen=True)
class RowProductSum:
    """The products of the numbers in each row of an input, as of grids of patches, which must add up to a size."""

    input: str  # its name
    multiples: tuple[int, ...]  # of which the numbers of a row must be, each 1 or more
    count: Dim

    def __str__(self) -> str:
        by = "x".join(map(str, self.multiples))
        return f"products of rows of {self.input}, multiples of {by}, add up to {self.count}"


@dataclass(frozen=True)
class DescribedValues:
    """The elements of an input that have a value, which the rows of a second input describe one after the other.

    A row stands for as many as the product of its numbers, each over one of the `divisors` and rounded down, in a run
    of their own where `runs`.  Numbers are at least the divisor, and at most what `most` says, if it does.
    """

    input: str  # its name, of one `[texts, seq]`
    value: int
    mask: str  # the name of an input that says which elements count; "": all do
    rows: str  # the name of the input that describes them
    divisors: tuple[int, ...]
    runs: bool = True
    most: tuple[Dim, ...] = ()

    def __str__(self) -> str:
        by = "x".join(map(str, self.divisors))
        said = "runs of {} in {} are as long as" if self.runs else "{}s in {} are as many as"
        below = f", at most {'x'.join(map(str, self.most))}" if self.most else ""
        return f"{said.format(self.value, self.input)} products of rows of {self.rows} by {by}{below}"


ValueCondition: TypeAlias = ValueCount | RowProductSum | DescribedValues
"""A condition on the values of an input."""


@lru_cache(maxsize=1 << 16)  # as below
def _text(dim: Dim) -> str:
    return str(dim)


def in_layout(tensor: torch.Tensor, layout: Sequence[int]) -> torch.Tensor:
    """A tensor as one that is dense in memory, with its dimensions in this order, the outermost first."""
    return tensor.permute(tuple(layout)).contiguous().permute(tuple(map(layout.index, range(tensor.dim()))))


def at(dim: Dim, sizes: Mapping[sympy.Symbol, int]) -> int:
    """A size as a number."""
    return dim if isinstance(dim, int) else int(bound(dim, sizes))


def number_at(dim: Dim, sizes: Mapping[sympy.Symbol, int]) -> Any:
    """A size as a number, which may be one of sympy."""
    if isinstance(dim, (int, float)):
        return dim
    if (compute := _in_python(dim)) is not None and dim.free_symbols <= sizes.keys():
        with suppress(ZeroDivisionError, AssertionError):  # as in a condition
            return compute(sizes)
    return bound(dim, sizes)


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
        return all(_holds(guard, sizes) for guard in guards)
    except (ZeroDivisionError, AssertionError):  # the latter of torch's own Mod
        return False


def _holds(guard: sympy.Basic, sizes: Mapping[Any, int]) -> bool:
    if (compute := _in_python(guard)) is not None and guard.free_symbols <= sizes.keys():
        with suppress(ZeroDivisionError, AssertionError):  # sympy may have left out what raises
            return compute(sizes)
    return bound(guard, sizes) == sympy.true


def _remainder(number: int, divisor: int) -> int:
    """That of torch's Mod for two numbers."""
    assert number >= 0
    assert divisor >= 1
    return number % divisor


_IN_PYTHON: dict[Any, Callable[..., Any]] = {
    sympy.Add: lambda *terms: sum(terms),
    sympy.Mul: lambda *factors: prod(factors),
    sympy.Min: min,
    sympy.Max: max,
    Min: min,
    Max: max,
    Mod: _remainder,
    PythonMod: lambda number, divisor: number % divisor,
    FloorDiv: lambda number, divisor: number // divisor,
    sympy.Eq: lambda one, other: one == other,
    sympy.Ne: lambda one, other: one != other,
    sympy.Lt: lambda one, other: one < other,
    sympy.Le: lambda one, other: one <= other,
    sympy.Gt: lambda one, other: one > other,
    sympy.Ge: lambda one, other: one >= other,
    sympy.And: lambda *conditions: all(conditions),
    sympy.Or: lambda *conditions: any(conditions),
    sympy.Not: lambda condition: not condition,
}


@lru_cache(maxsize=1 << 12)
def _in_python(expr: sympy.Basic) -> Callable[[Mapping[Any, int]], Any] | None:
    """An expression as a function of sizes, some fifty times as fast as sympy; None if it has other operators."""
    match expr:
        case sympy.Symbol():
            return lambda sizes: sizes[expr]
        case sympy.Integer():
            number = int(expr)
            return lambda sizes: number
    parts = tuple(map(_in_python, expr.args))
    if (compute := _IN_PYTHON.get(expr.func)) is None or not parts or None in parts:
        return None
    return lambda sizes: compute(*[part(sizes) for part in parts])  # type: ignore[misc]
