"""mark-cheap: find the values that are cheaper to compute again in each stage than to send there.

Masks, position tables, rotary angles: a few operators away from the inputs.  split-stages cuts through
them for free, and duplicate-cheap copies them into the stages that read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ir.cluster import Cluster
from ir.graph import Call, Graph, Node, Param, State
from ir.verify import costed
from passes.timing import Clock


@dataclass(frozen=True)
class MarkCheap:
    """A node is cheap if all that leads to it from the inputs takes less time than sending its results."""

    name: ClassVar = "mark-cheap"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        clock = Clock(graph)
        device = min(cluster.devices, key=lambda d: d.bandwidth)
        cones: dict[Node, frozenset[Node]] = {}
        cheap: set[Node] = set()
        for node in graph.nodes:
            if not _repeatable(node, graph, cones):
                continue
            cones[node] = frozenset({node}).union(
                *(cones[graph.producer[v]] for v in node.operands if v in graph.producer)
            )
            work = sum(clock.seconds(replace(n, cost=replace(n.cost, launches=0)), device) for n in cones[node])
            sent = sum(clock.nbytes(v) for v in node.results)
            held = {v for n in cones[node] for v in n.operands if isinstance(v, Param)}
            if work <= clock.fastest_transfer(sent, cluster) and sum(map(clock.nbytes, held)) <= sent:
                cheap |= cones[node]
        return graph.map(lambda node: replace(node, cheap=node in cheap))


def _repeatable(node: Node, graph: Graph, known: dict[Node, frozenset[Node]]) -> bool:
    """Whether running a node twice gives the same result twice, from inputs, weights and repeatable nodes alone."""
    if not isinstance(node, Call) or node.group or torch.Tag.nondeterministic_seeded in node.op.tags:
        return False
    if node.cost.flops != 0 and any(isinstance(v, Param) for v in node.operands):
        return False  # a layer of the model
    return all(graph.producer[v] in known if v in graph.producer else not isinstance(v, State) for v in node.operands)
