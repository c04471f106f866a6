"""A machine that is the same on every host, and the default passes for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ir.cluster import Cluster, Device, Link
from ir.graph import Graph
from passes.defaults import default_passes
from passes.pipeline import Pipeline, Step

DEVICE = Device("cpu", flops=1e11, bandwidth=2e10, memory=8 << 30, launch=2e-6)
LINK = Link(bandwidth=4e9, latency=3e-5)


def machine(devices: int, memory: int = DEVICE.memory) -> Cluster:
    """Equal devices, whatever the host that runs the test has."""
    device = Device("cpu", DEVICE.flops, DEVICE.bandwidth, memory, DEVICE.launch)
    return Cluster.uniform((device,) * devices, LINK)


def steps(graph: Graph, cluster: Cluster, **options: Any) -> Iterator[Step]:
    """The default passes, one after the other."""
    return Pipeline(default_passes(**options)).run(graph, cluster)


def planned(graph: Graph, devices: int, **options: Any) -> Graph:
    """The graph after the last default pass."""
    *_, last = steps(graph, machine(devices), **options)
    return last.graph
