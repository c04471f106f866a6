"""Values of sizes: the graph in which `batch` is 4 everywhere, and the values that a graph allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import sympy

from ir.errors import CompileError
from ir.graph import Graph, Node, Value, map_arguments
from ir.objects.signature import Signature
from ir.sizes import CallSizes, DescribedValues, TensorType, ValueCondition, bound, hold

_T = TypeVar("_T")
SizeValues: TypeAlias = Mapping[sympy.Symbol, int]


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

    def left(of: Mapping[sympy.Symbol, _T]) -> dict[sympy.Symbol, _T]:
        return {s: what for s, what in of.items() if s not in values}

    def open_guards(guards: tuple[sympy.Basic, ...]) -> tuple[sympy.Basic, ...]:
        return tuple(g for g in (bound(guard, values) for guard in guards) if g is not sympy.true)

    fixed = map_sizes(graph, dim)
    return replace(
        fixed,
        hints=left(graph.hints),
        workload=with_sizes(graph.workload, left),
        ranges=left(graph.ranges),
        guards=open_guards(graph.guards),
        programs=tuple(
            replace(p, ranges=left(p.ranges), guards=open_guards(p.guards), symbols=left(p.symbols))
            for p in fixed.programs
        ),
    )


def with_sizes(workload: tuple[CallSizes, ...], to: Callable[[SizeValues], SizeValues]) -> tuple[CallSizes, ...]:
    """A workload with `to` applied to the sizes of each call."""
    return tuple(replace(call, sizes=to(call.sizes)) for call in workload)


def map_sizes(graph: Graph, to: Callable[[Any], Any]) -> Graph:
    """The graph with `to` applied to all sizes and literals of types, arguments, costs and of what is returned."""

    def value(v: Value) -> Value:
        shape = tuple(map(to, v.type.shape))
        return v if shape == v.type.shape else replace(v, type=TensorType(shape, v.type.dtype))

    def node(n: Node) -> Node:
        cost = replace(n.cost, flops=to(n.cost.flops), bytes=to(n.cost.bytes), elements=to(n.cost.elements))
        return replace(map_arguments(n, to), cost=cost)

    def signature(s: Signature) -> Signature:
        return replace(s, returns=replace(s.returns, leaves=tuple(map(to, s.returns.leaves))))

    def counts(found: tuple[ValueCondition, ...]) -> tuple[ValueCondition, ...]:
        return tuple(
            replace(c, most=tuple(map(to, c.most))) if isinstance(c, DescribedValues) else replace(c, count=to(c.count))
            for c in found
        )

    mapped = graph.map_values(value).map(node)
    programs = (replace(p, signature=signature(p.signature), counts=counts(p.counts)) for p in mapped.programs)
    return replace(mapped, signature=signature(graph.signature), counts=counts(graph.counts), programs=tuple(programs))


def allowed_sizes(graph: Graph) -> Iterator[SizeValues]:
    """The example's sizes, with 2 for 1, at which a copy can look like a view; then larger sizes."""
    example = graph.traced_sizes
    grown = [{s: (k + i) * size for i, (s, size) in enumerate(example.items())} for k in (2, 3)]
    multiples = [{s: k * size for s, size in example.items()} for k in (2, 3, 5)]
    yield example if allowed(example, graph) else graph.hints
    yield from (sizes for sizes in (*grown, *multiples) if sizes and allowed(sizes, graph))


def allowed(sizes: SizeValues, graph: Graph) -> bool:
    """Whether sizes are in their ranges and meet the guards."""
    ranges = ((size, *graph.ranges.get(s, (1, None))) for s, size in sizes.items())
    return all(low <= size <= (high or size) for size, low, high in ranges) and hold(graph.guards, sizes)
