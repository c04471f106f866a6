"""Values of sizes: the graph in which `batch` is 4 everywhere, and the values that a graph allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import sympy

from ir.errors import CompileError
from ir.graph import Graph, Value, map_arguments
from ir.sizes import TensorType, bound, hold


def bind_sizes(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph for given values of some of its symbols.  Raises CompileError for a name that it does not have."""
    symbols = {str(s): s for s in graph.hints}
    for name in sizes:
        if name not in symbols:
            raise CompileError(f"no dynamic size is named {name!r}; there are {', '.join(symbols) or 'none'}")
    values = {symbols[name]: size for name, size in sizes.items()}
    if not values:
        return graph

    def dim(d: Any) -> Any:
        if not isinstance(d, sympy.Basic):
            return d
        found = bound(d, values)
        return int(found) if found.is_Integer else found

    def value(v: Value) -> Value:
        return replace(v, type=TensorType(tuple(map(dim, v.type.shape)), v.type.dtype))

    returns = replace(graph.signature.returns, leaves=tuple(map(dim, graph.signature.returns.leaves)))
    return replace(
        graph.map_values(value).map(lambda node: map_arguments(node, dim)),
        signature=replace(graph.signature, returns=returns),
        hints={s: h for s, h in graph.hints.items() if s not in values},
        ranges={s: r for s, r in graph.ranges.items() if s not in values},
        guards=tuple(g for g in (bound(guard, values) for guard in graph.guards) if g is not sympy.true),
    )


SizeValues: TypeAlias = Mapping[sympy.Symbol, int]


def allowed_sizes(graph: Graph) -> Iterator[SizeValues]:
    """The example's sizes, with 2 for 1, at which a copy can look like a view; then larger sizes."""
    example = {s: max(hint, 2) for s, hint in graph.hints.items()}
    grown = [{s: (k + i) * size for i, (s, size) in enumerate(example.items())} for k in (2, 3)]
    multiples = [{s: k * size for s, size in example.items()} for k in (2, 3, 5)]
    yield example if allowed(example, graph) else graph.hints
    yield from (sizes for sizes in (*grown, *multiples) if sizes and allowed(sizes, graph))


def allowed(sizes: SizeValues, graph: Graph) -> bool:
    """Whether sizes are in their ranges and meet the guards."""
    ranges = ((size, *graph.ranges.get(s, (1, None))) for s, size in sizes.items())
    return all(low <= size <= (high or size) for size, low, high in ranges) and hold(graph.guards, sizes)
