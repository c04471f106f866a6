"""Graphs that join all tensors along a dimension at once, compared with their model at other sizes of it."""

from __future__ import annotations

from ir.capture.checks.equivalence import same_terms
from ir.capture.checks.values import of_size
from ir.capture.export.example import Example
from ir.capture.sizes.dynamic import widen
from ir.graph import Graph, sizes_of
from ir.sizes import hold

_MANY = 50  # more than the numbers that code compares with


def joined_at_other_sizes(name: str, graph: Graph, example: Example) -> bool:
    """Whether a graph is its model where the size `name` is 1, and where it is larger than in the example.

    Code can read from a list how many tensors there are, and no condition on the size is recorded of that.
    """
    hints = [hint for symbol, hint in graph.hints.items() if str(symbol) == name]
    return all(_is_model_at(name, size, graph, example) for hint in hints for size in (1, hint + 1, hint + _MANY))


def _is_model_at(name: str, size: int, graph: Graph, example: Example) -> bool:
    """Whether it is at one size; True for a size that the graph refuses."""
    tensors = []
    for tensor, dims in zip(widen(example.tensors, example.marks), example.marks, strict=True):
        for dim in (dim for dim, mark in dims.items() if mark.name == name):
            tensor = of_size(tensor, dim, size)
        tensors.append(tensor)
    sizes = sizes_of(zip(graph.inputs, tensors, strict=True))
    within = all(low <= sizes[s] <= (high or sizes[s]) for s, (low, high) in graph.ranges.items() if s in sizes)
    return not within or not hold(graph.guards, sizes) or same_terms(graph, example.at(tensors))
