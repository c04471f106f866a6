"""Predicted seconds and bytes of a graph's nodes and transfers: at some sizes, and on average over a workload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import sympy

from ir.cost import Cost, Time
from ir.graph import Graph, Node, Value
from ir.machine.cluster import Cluster, Device
from ir.machine.kinds import has_graphs
from ir.sizes import Dim, number_at
from passes.cost_models import CostModel
from passes.cost_models.profiled import Profiled
from passes.cost_models.steps import seconds_beside


def parts_of_calls(graph: Graph) -> Sequence[float]:
    """The share of each program in the calls; 1 for a graph of one program."""
    calls = [program.calls for program in graph.programs] or [1.0]
    return [n / sum(calls) for n in calls]


class Predictions:
    """Numbers for a graph's nodes and values at some sizes, by default those of the example inputs.

    `model` predicts times: by default, measured times where costs were profiled, and the roofline elsewhere.
    """

    def __init__(
        self, graph: Graph, model: CostModel | None = None, sizes: Mapping[sympy.Symbol, int] | None = None
    ) -> None:
        self._model = model or Profiled()
        self._decodes = bool(graph.decoding.page)
        sizes = graph.hints if sizes is None else sizes
        self._number = lru_cache(maxsize=None)(lambda dim: float(number_at(dim, sizes)))
        self._plain = lru_cache(maxsize=None)(self._in_numbers)  # nodes of layers that are alike cost the same

    def number(self, dim: Dim) -> float:
        return dim if isinstance(dim, (int, float)) else self._number(dim)

    def nbytes(self, value: Value) -> float:
        return self.number(value.type.nbytes)

    def cost(self, node: Node) -> Cost:
        """A node's cost in plain numbers."""
        return self._plain(node.cost)

    def _in_numbers(self, cost: Cost) -> Cost:
        flops, nbytes, elements = (self.number(dim) for dim in (cost.flops, cost.bytes, cost.elements))
        return replace(cost, flops=flops, bytes=nbytes, elements=elements)

    def time(self, node: Node, device: Device) -> Time:
        cost = self.cost(node)
        time = self._model.time(node, cost, device)
        if not self._decodes or not has_graphs(device.name):
            return time
        return Time(time.device + seconds_beside(node, self.number, float(cost.bytes), device))

    def seconds(self, nodes: Iterable[Node], device: Device) -> float:
        """Seconds for nodes that run one after the other: the device's own or its host's, whichever are more."""
        return max(sum((self.time(node, device) for node in nodes), Time(0.0)))

    def shares(self, nodes: Sequence[Node], device: Device) -> tuple[float, ...]:
        """The part of each node in `seconds`: its time on the device, or on the host if that is slower in total."""
        times = [self.time(node, device) for node in nodes]
        on_device, on_host = [time.device for time in times], [time.host for time in times]
        return tuple(on_host if sum(on_host) > sum(on_device) else on_device)


class MeanPredictions:
    """Numbers for a graph's nodes and values on average over the calls of its workload (`Graph.mix`)."""

    def __init__(self, graph: Graph, model: CostModel | None = None) -> None:
        self.calls = [(call.share, Predictions(graph, model, call.sizes)) for call in graph.mix]

    def nbytes(self, value: Value) -> float:
        return sum(share * predicted.nbytes(value) for share, predicted in self.calls)

    def time(self, node: Node, device: Device) -> Time:
        return sum((predicted.time(node, device) * share for share, predicted in self.calls), Time(0.0))

    def seconds(self, nodes: Sequence[Node], device: Device) -> float:
        """Seconds for nodes that run one after the other."""
        return sum(share * predicted.seconds(nodes, device) for share, predicted in self.calls)

    def shares(self, nodes: Sequence[Node], device: Device) -> tuple[float, ...]:
        """The part of each node in `seconds`."""
        each = [[share * time for time in predicted.shares(nodes, device)] for share, predicted in self.calls]
        return tuple(map(sum, zip(*each, strict=True)))


def fastest_transfer(nbytes: float, cluster: Cluster) -> float:
    """Seconds over the fastest link of a cluster; 0 without links."""
    return min((link.seconds(nbytes) for link in cluster.links.values()), default=0.0)
