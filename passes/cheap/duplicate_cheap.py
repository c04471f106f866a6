"""duplicate-cheap: copies of cheap nodes in each stage that reads them, in place of transfers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ir.analysis.borders import Namer, repeated
from ir.graph import Graph, Node, Value, rename
from ir.machine.cluster import Cluster
from passes.pipeline import each_program


@dataclass(frozen=True)
class DuplicateCheap:
    """The node itself stays in its stage, if that reads it; each other stage that reads it gets a copy."""

    name: ClassVar = "duplicate-cheap"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        needed, namer = _stages_that_need(graph), Namer(graph.names)
        local: dict[tuple[Value, int], Value] = {}
        nodes: list[Node] = []
        for node in graph.nodes:
            for stage in needed.get(node, [node.stage]):
                if stage == node.stage:
                    nodes.append(node)
                    continue
                results = tuple(repeated(v, stage, namer) for v in node.results)
                local |= {(v, stage): copy for v, copy in zip(node.results, results, strict=True)}
                nodes.append(replace(node, results=results, stage=stage))
        return replace(graph, nodes=tuple(rename(n, _reading(local, n.stage)) for n in nodes))


def _reading(local: Mapping[tuple[Value, int], Value], stage: int) -> Callable[[Value], Value]:
    return lambda value: local.get((value, stage), value)


def _stages_that_need(graph: Graph) -> dict[Node, list[int]]:
    """For each cheap node, the stages that read its results directly or through other cheap nodes."""
    kept = set(graph.kept)
    needed: dict[Node, list[int]] = {}
    for node in reversed(graph.nodes):
        if node.cheap:
            readers = [user for v in node.results for user in graph.users.get(v, ())]
            stages = {stage for user in readers for stage in needed.get(user, [user.stage])}
            stages |= {node.stage} if any(v in kept for v in node.results) else set()
            needed[node] = sorted(stages)
    return needed
