"""Seconds of nodes and transfers, at the sizes of the graph's example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import sympy

from ir.cost import Cost, Time
from ir.graph import Graph, Node, Value
from ir.machine.cluster import Cluster, Device
from ir.sizes import Dim, bound
from passes.cost_models import CostModel
from passes.cost_models.profiled import Profiled


class Predictions:
    """Puts numbers on a graph: what was measured, where costs are profiled, and else the roofline."""

    def __init__(self, graph: Graph, model: CostModel | None = None) -> None:
        self._model = model or Profiled()
        sizes: Mapping[sympy.Symbol, int] = graph.hints
        self._number = lru_cache(maxsize=None)(lambda dim: float(bound(dim, sizes)))

    def number(self, dim: Dim) -> float:
        return dim if isinstance(dim, (int, float)) else self._number(dim)

    def nbytes(self, value: Value) -> float:
        return self.number(value.type.nbytes)

    def cost(self, node: Node) -> Cost:
        """A node's cost in plain numbers."""
        cost = node.cost
        flops, nbytes, elements = (self.number(dim) for dim in (cost.flops, cost.bytes, cost.elements))
        return replace(cost, flops=flops, bytes=nbytes, elements=elements)

    def time(self, node: Node, device: Device) -> Time:
        return self._model.time(node, self.cost(node), device)

    def seconds(self, nodes: Iterable[Node], device: Device) -> float:
        """What a device takes for nodes that run one after the other: what it does itself or what its host does."""
        return max(sum((self.time(node, device) for node in nodes), Time(0.0)))

    def shares(self, nodes: Sequence[Node], device: Device) -> tuple[float, ...]:
        """What each node adds to those seconds: its time on the device, or on the host if all wait for the host."""
        times = [self.time(node, device) for node in nodes]
        total = sum(times, Time(0.0))
        return tuple(time.host if total.host > total.device else time.device for time in times)

    def fastest_transfer(self, nbytes: float, cluster: Cluster) -> float:
        """Seconds over the best link there is."""
        return min((link.seconds(nbytes) for link in cluster.links.values()), default=0.0)
