"""mark-cheap: the nodes whose results are cheaper to compute again in each stage than to send there.

Such are masks, position tables and rotary angles: a few operators away from the inputs.  split-stages cuts through
them for free, and duplicate-cheap copies them into the stages that read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ir.analysis.verify import costed
from ir.graph import Call, Constant, Graph, Node, Param, State, Value
from ir.machine.cluster import Cluster
from passes.cost_models.predictions import MeanPredictions, fastest_transfer
from passes.cost_models.roofline import Roofline


@dataclass(frozen=True)
class MarkCheap:
    """A node is cheap if it and all its ancestors take less time than sending its results.

    Its ancestors may read integer or boolean inputs, sizes, constants and small weights, but no floating-point
    inputs.  Kernel launches are not counted.
    """

    name: ClassVar = "mark-cheap"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        predicted = MeanPredictions(graph, Roofline())  # unlike measured times, it can leave out launches
        device = min(cluster.devices, key=lambda d: d.bandwidth)
        cones: dict[Node, frozenset[Node]] = {}
        cheap: set[Node] = set()
        for node in graph.nodes:
            if not _repeatable(node, graph, cones):
                continue
            cones[node] = frozenset({node}).union(
                *(cones[graph.producer[v]] for v in node.operands if v in graph.producer)
            )
            work = sum(predicted.time(replace(n, cost=replace(n.cost, launches=0)), device).device for n in cones[node])
            sent = sum(predicted.nbytes(v) for v in node.results)
            held = {v for n in cones[node] for v in n.operands if isinstance(v, Param)}
            if work <= fastest_transfer(sent, cluster) and sum(map(predicted.nbytes, held)) <= sent:
                cheap |= cones[node]
        return graph.map(lambda node: replace(node, cheap=node in cheap))


def _repeatable(node: Node, graph: Graph, known: dict[Node, frozenset[Node]]) -> bool:
    """Whether a node is deterministic, without side effects, and reads only inputs, weights and repeatable nodes."""
    if not isinstance(node, Call) or node.group or torch.Tag.nondeterministic_seeded in node.op.tags:
        return False
    if node.cost.flops != 0 and any(isinstance(v, Param) for v in node.operands):
        return False  # a layer of the model
    if any(v in graph.outputs for v in node.results):
        return False
    return all(graph.producer[v] in known if v in graph.producer else _is_at_hand(v) for v in node.operands)


def _is_at_hand(leaf: Value) -> bool:
    return isinstance(leaf, (Param, Constant)) or not (isinstance(leaf, State) or leaf.type.dtype.is_floating_point)
