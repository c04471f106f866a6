"""group-shared: groups of nodes that must share a device, as they read one parameter or touch one state."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ir.analysis.pools import GATHERS
from ir.graph import Call, Graph, Node, Param, Value
from ir.machine.cluster import Cluster
from ir.operators.facts import rearrangement
from passes.options.options import Options, Shared


@dataclass(frozen=True)
class GroupShared:
    """Overlapping groups are merged.  The nodes of a state always share a device: state is never copied.

    Nor are parameters copied that several programs read: the first reader of each program is bound to the first ones of
    the others, the second to the second.  Readers of one program are bound to each other as `shared` says; those of
    several programs only if that is colocate.
    """

    shared: Shared = Options.shared

    name: ClassVar = "group-shared"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> Hashable:
        return ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        groups, shared = _Groups(), Shared(self.shared)
        for state, nodes in _touching_state(graph):
            groups.bind(state.name, nodes)
        for param in graph.params:
            for i, nodes in enumerate(_met_again(graph, param)):
                groups.bind(f"{param.name}.{i}" if i else param.name, nodes)
        bound = set(groups.name_of.values())
        if shared is not Shared.replicate:
            for param in graph.params:
                readers = graph.users.get(param, ())
                if len(readers) > 1 and (shared is Shared.colocate or not _met_again(graph, param)):
                    groups.bind(param.name, readers)
        names = set(groups.name_of.values())
        separable = frozenset(names - bound if shared is Shared.auto else ())
        grouped = graph.map(lambda node: replace(node, group=groups.name_of.get(node, "")))
        return replace(grouped, separable=separable)


def _touching_state(graph: Graph) -> Iterable[tuple[Value, tuple[Node, ...]]]:
    for state in graph.states:
        writers = (graph.producer[value] for changed, value in graph.updates if changed is state)
        nodes = dict.fromkeys((*graph.users.get(state, ()), *writers))
        yield state, tuple(dict.fromkeys((*nodes, *(_gathering(graph, nodes) if state.zeros else ()))))


def _gathering(graph: Graph, nodes: Iterable[Node]) -> Iterator[Node]:
    """The readers of what a pool holds for the rows of a batch, and of its rearrangements: it is large."""
    for reader in (user for node in nodes for v in node.results for user in graph.users.get(v, ())):
        yield reader
        if isinstance(reader, Call) and (reader.op in GATHERS or rearrangement(reader.op) is not None):
            yield from _gathering(graph, [reader])


def _met_again(graph: Graph, param: Param) -> list[tuple[Node, ...]]:
    """The readers of a parameter that are one in several programs; none if one program reads it alone."""
    readers = graph.users.get(param, ())
    programs = {node.program for node in readers}
    if len(programs) < 2:
        return []
    apart = [[node for node in readers if node.program == program] for program in programs]
    return list(zip(*apart, strict=True)) if len({len(nodes) for nodes in apart}) == 1 else [readers]


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
