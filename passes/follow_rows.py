"""follow-rows: find the size along which a batch may be split into microbatches, or the operator that forbids it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import sympy

from ir.graph import Call, Graph, Node, Value, is_whole
from ir.machine.cluster import Cluster
from ir.microbatching import Microbatching
from ir.text.printer import op_name
from passes.pipeline import each_program
from passes.rows.axis import Axis, MixedError, Site, require
from passes.rows.rules import axes_of


@dataclass(frozen=True)
class FollowRows:
    """Each size of the inputs is tried, the first dimensions first; the first that no operator mixes is taken."""

    name: ClassVar = "follow-rows"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> Hashable:
        return ()

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        return replace(graph, microbatching=_microbatching(graph))


def _microbatching(graph: Graph) -> Microbatching:
    if graph.updates:
        return Microbatching(reason=f"the model keeps state from batch to batch, {graph.updates[0][0].fqns[0]}")
    reasons = []
    for size in _candidates(graph):
        try:
            return _followed(graph, size)
        except MixedError as e:
            reasons.append(f"along `{size}`, {e}")
    return Microbatching(reason="; ".join(reasons) or "no size of its inputs may change; compile the model so")


def _candidates(graph: Graph) -> Iterator[sympy.Symbol]:
    """The sizes that are dimensions of inputs; those of first dimensions before all others."""
    depth = max((len(v.type.shape) for v in graph.inputs), default=0)
    dims = [v.type.shape[i] for i in range(depth) for v in graph.inputs if i < len(v.type.shape)]
    yield from dict.fromkeys(d for d in dims if isinstance(d, sympy.Symbol))


def _followed(graph: Graph, size: sympy.Symbol) -> Microbatching:
    """Raises MixedError that names the operator and its place."""
    known: dict[Value, Axis] = {}
    for value in graph.inputs:
        dims = [i for i, d in enumerate(value.type.shape) if size in sympy.sympify(d).free_symbols]
        if dims:
            plain = len(dims) == 1 and value.type.shape[dims[0]] == size
            require(plain, f"`{value.name}` has {value.type}, in which it is mixed with other sizes")
            known[value] = Axis(dims[0])
    inputs = tuple(_dim(known, v) for v in graph.inputs)
    for node in graph.nodes:
        known.update(_results(node, size, known))
    for value in graph.outputs:
        axis = known.get(value)
        plain = axis is None or (axis.before == 1 and axis.order is None)
        require(plain, f"the rows of `{value.name}` do not lie one after another")
        require(axis is None or not axis.numbers, f"`{value.name}` holds the numbers of rows")
    return Microbatching(size, inputs, tuple(_dim(known, v) for v in graph.outputs), "")


def _dim(known: dict[Value, Axis], value: Value) -> int | None:
    return known[value].dim if value in known else None


def _said(node: Call) -> str:
    """An operator and its line, or the module that is kept whole."""
    if is_whole(node):
        return f"{node.where.module or 'the model'}, which is kept whole"
    return f"{op_name(node).split('.')[1]} in {node.where}"


def _results(node: Node, size: sympy.Symbol, known: dict[Value, Axis]) -> dict[Value, Axis]:
    assert isinstance(node, Call), "follow-rows runs before insert-transfers"
    try:
        axes = axes_of(Site(node, size, known))
    except MixedError as e:
        raise MixedError(f"{_said(node)}: {e}") from None
    return {v: axis for v, axis in zip(node.results, axes, strict=True) if axis is not None}
