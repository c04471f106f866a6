"""Graphs that join all tensors along a dimension at once, compared with their model at other sizes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TypeAlias

import sympy

from ir.capture.checks.equivalence import same_terms
from ir.capture.checks.values import of_size
from ir.capture.export.example import Example
from ir.capture.sizes.dynamic import widen
from ir.graph import Graph, sizes_of
from ir.sizes import at, hold

_MANY = 50  # more than the numbers that code compares with
_Sizes: TypeAlias = Mapping[sympy.Symbol, int]


def joined_at_other_sizes(name: str, graph: Graph, example: Example) -> bool:
    """Whether a graph is its model where the size `name` is smaller than in the example, and where it is larger.

    Code can read from a list how many tensors there are, and no condition on the size is recorded of that.  The graph
    may compute the size from another one, or have another name for it.
    """
    tensors = widen(example.tensors, example.marks)
    marked = zip(graph.inputs, example.marks, strict=True)
    dims = [v.type.shape[dim] for v, marks in marked for dim, mark in marks.items() if mark.name == name]
    symbols = [s for s in graph.hints if any(not isinstance(dim, int) and s in dim.free_symbols for dim in dims)]
    sizes = {**graph.hints, **sizes_of(zip(graph.inputs, tensors, strict=True))}
    return all(
        _is_model_at(other, graph, replace(example, tensors=tensors)) for other in _others(symbols, graph, sizes)
    )


def _others(symbols: Iterable[sympy.Symbol], graph: Graph, sizes: _Sizes) -> Iterator[_Sizes]:
    """The sizes with another one for each of the symbols: the smallest, the next and a large one of those it takes."""
    for symbol in symbols:
        hint, most = sizes[symbol], sizes[symbol] + max(sizes[symbol], _MANY)
        for numbers in (range(1, hint), range(hint + 1, most), range(most, hint, -1)):
            others = ({**sizes, symbol: number} for number in numbers)
            yield from islice((other for other in others if _takes(graph, other)), 1)


def _takes(graph: Graph, sizes: _Sizes) -> bool:
    within = all(low <= sizes[s] <= (high or sizes[s]) for s, (low, high) in graph.ranges.items() if s in sizes)
    return within and hold(graph.guards, sizes)


def _is_model_at(sizes: _Sizes, graph: Graph, example: Example) -> bool:
    tensors = []
    for value, tensor, marks in zip(graph.inputs, example.tensors, example.marks, strict=True):
        for dim in marks:
            size = at(value.type.shape[dim], sizes)
            tensor = tensor if tensor.shape[dim] == size else of_size(tensor, dim, size)
        tensors.append(tensor)
    return same_terms(graph, example.at(tensors))
