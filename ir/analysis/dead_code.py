"""Dead code elimination: the graph without nodes that nothing depends on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from ir.graph import Graph, Node, Value

_Leaf = TypeVar("_Leaf", bound=Value)


def without_dead_code(graph: Graph) -> Graph:
    """The graph with only the nodes that an output or a state depends on, and their leaves; all inputs stay."""
    live = set(graph.kept)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(v in live for v in node.results):
            nodes.append(node)
            live.update(node.operands)
    live.update(state for state, _ in graph.updates)

    def used(leaves: tuple[_Leaf, ...]) -> tuple[_Leaf, ...]:
        return tuple(leaf for leaf in leaves if leaf in live)

    return replace(
        graph,
        nodes=tuple(reversed(nodes)),
        params=used(graph.params),
        constants=used(graph.constants),
        states=used(graph.states),
    )


def without_unread(graph: Graph, fqns: Collection[str]) -> Graph:
    """The graph without those of the named states that no node reads, and without what makes their next values."""
    unread = {s for s in graph.states if s not in graph.users and s not in graph.kept and s.fqns[0] in fqns}
    return without_dead_code(replace(graph, updates=tuple(u for u in graph.updates if u[0] not in unread)))
