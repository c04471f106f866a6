"""A graph for given values of its sizes: `batch` becomes 4 everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
from torch.utils._pytree import tree_map

from ir.errors import CompileError
from ir.graph import Graph, Node, TensorType, Transfer, Value, bound, rename


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

    moved: dict[Value, Value] = {}

    def value(v: Value) -> Value:
        if v not in moved:
            moved[v] = replace(v, type=TensorType(tuple(map(dim, v.type.shape)), v.type.dtype))
        return moved[v]

    def node(n: Node) -> Node:
        n = replace(rename(n, value), results=tuple(map(value, n.results)))
        if isinstance(n, Transfer):
            return n
        args, kwargs = tree_map(dim, (n.args, dict(n.kwargs)))
        return replace(n, args=args, kwargs=kwargs)

    def moved_all(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(map(value, values))

    returns = replace(graph.signature.returns, leaves=tuple(map(dim, graph.signature.returns.leaves)))
    return replace(
        graph,
        inputs=moved_all(graph.inputs),
        params=moved_all(graph.params),
        constants=moved_all(graph.constants),
        states=moved_all(graph.states),
        nodes=tuple(map(node, graph.nodes)),
        outputs=moved_all(graph.outputs),
        updates=tuple((moved[s], value(v)) for s, v in graph.updates),  # type: ignore[misc]
        signature=replace(graph.signature, returns=returns),
        hints={s: h for s, h in graph.hints.items() if s not in values},
        ranges={s: r for s, r in graph.ranges.items() if s not in values},
        guards=tuple(g for g in (bound(guard, values) for guard in graph.guards) if g is not sympy.true),
    )
