"""Seconds of nodes and transfers at the example's sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import sympy

from ir.cluster import Cluster, Device
from ir.graph import Cost, Dim, Graph, Node, Value, bound
from passes.cost_models import CostModel
from passes.cost_models.roofline import Roofline


class Clock:
    """Puts numbers on a graph: sizes are those of its example inputs."""

    def __init__(self, graph: Graph, model: CostModel | None = None) -> None:
        self._model = model or Roofline()
        sizes: Mapping[sympy.Symbol, int] = graph.hints
        self._number = lru_cache(maxsize=None)(lambda dim: float(bound(dim, sizes)))

    def number(self, dim: Dim) -> float:
        return dim if isinstance(dim, (int, float)) else self._number(dim)

    def nbytes(self, value: Value) -> float:
        return self.number(value.type.nbytes)

    def cost(self, node: Node) -> Cost:
        """A node's cost in plain numbers."""
        return Cost(self.number(node.cost.flops), self.number(node.cost.bytes), node.cost.launches)  # type: ignore[arg-type]

    def seconds(self, node: Node, device: Device) -> float:
        return self._model.seconds(self.cost(node), device)

    def fastest_transfer(self, nbytes: float, cluster: Cluster) -> float:
        """Seconds over the best link there is."""
        return min((link.seconds(nbytes) for link in cluster.links.values()), default=0.0)
