"""group-shared: groups of nodes that must share a device, as they read one parameter or touch one state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from ir.graph import Graph, Node, Value
from ir.machine.cluster import Cluster
from passes.options.options import Options, Shared


@dataclass(frozen=True)
class GroupShared:
    """Overlapping groups are merged.  The nodes of a state always share a device: state is never copied."""

    shared: Shared = Options.shared

    name: ClassVar = "group-shared"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        groups = _Groups()
        for state, nodes in _touching_state(graph):
            groups.bind(state.name, nodes)
        bound = set(groups.name_of.values())
        if Shared(self.shared) is not Shared.replicate:
            for param in graph.params:
                readers = graph.users.get(param, ())
                if len(readers) > 1:
                    groups.bind(param.name, readers)
        names = set(groups.name_of.values())
        separable = frozenset(names - bound if Shared(self.shared) is Shared.auto else ())
        grouped = graph.map(lambda node: replace(node, group=groups.name_of.get(node, "")))
        return replace(grouped, separable=separable)


def _touching_state(graph: Graph) -> Iterable[tuple[Value, tuple[Node, ...]]]:
    written = {state: graph.producer[value] for state, value in graph.updates}
    for state in graph.states:
        writer = (written[state],) if state in written else ()
        yield state, tuple(dict.fromkeys((*graph.users.get(state, ()), *writer)))


class _Groups:
    """Disjoint sets of nodes, each named after the first value that its nodes share."""

    def __init__(self) -> None:
        self.name_of: dict[Node, str] = {}

    def bind(self, name: str, nodes: Iterable[Node]) -> None:
        nodes = list(nodes)
        met = dict.fromkeys(self.name_of[n] for n in nodes if n in self.name_of)
        name = next(iter(met), name)
        for node, old in list(self.name_of.items()):
            if old in met:
                self.name_of[node] = name
        self.name_of |= dict.fromkeys(nodes, name)
