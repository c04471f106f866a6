"""A machine that is the same on every host, and the default passes for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ir.graph import Graph
from ir.machine.cluster import Cluster, Device, Link
from passes.defaults import default_passes
from passes.pipeline import PassPipeline, PassResult

DEVICE = Device("cpu", flops=1e11, bandwidth=2e10, memory=8 << 30, launch=2e-6)
LINK = Link(bandwidth=4e9, latency=3e-5)


def machine(devices: int) -> Cluster:
    """Equal devices, whatever the host that runs the test has."""
    return Cluster.uniform((DEVICE,) * devices, LINK)


def slow_machine(devices: int, **changes: Any) -> Cluster:
    """Devices for which a model of some hundred parameters is work enough to share."""
    return Cluster.uniform((replace(DEVICE, flops=1e6, bandwidth=1e7, launch=0.0, **changes),) * devices, LINK)


def steps(graph: Graph, cluster: Cluster, **options: Any) -> Iterator[PassResult]:
    """The default passes, one after the other."""
    return PassPipeline(default_passes(**options)).run(graph, cluster)


def planned(graph: Graph, cluster: Cluster, **options: Any) -> Graph:
    """The graph after the last default pass."""
    *_, last = steps(graph, cluster, **options)
    return last.graph


def cut(graph: Graph, stages: Sequence[int]) -> Graph:
    """The graph with a stage for each node, each on a device of its own."""
    nodes = tuple(replace(node, stage=stage) for node, stage in zip(graph.nodes, stages, strict=True))
    return replace(graph, nodes=nodes, placement=tuple(range(max(stages) + 1)))
