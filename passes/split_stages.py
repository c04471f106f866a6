"""split-stages: choose the stage of every node and the device of every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import ClassVar

from ir.cluster import Cluster
from ir.errors import PlanError
from ir.graph import Graph, Load, Node, Param, Split, Value
from ir.units import format_bytes, format_bytes_up
from ir.verify import costed
from passes.annotate_cost import memory_behind
from passes.options import option
from passes.partitioners import problem as parts
from passes.partitioners import solve
from passes.timing import Clock

_WORTH = 0.02  # of the bottleneck


class Objective(str, Enum):
    """What the cut is to be best at."""

    throughput = "throughput"  # the slowest stage is as fast as can be
    latency = "latency"  # one batch alone is through as soon as can be


@dataclass(frozen=True)
class SplitStages:
    """The best contiguous cut for the devices of the cluster, each of which gets a stage."""

    objective: Objective = option(Objective.throughput, "what the cut is to be best at")
    in_flight: int = option(1, "microbatches whose activations a stage holds at once")
    time_limit: float = option(60.0, "seconds to search for a better cut, or for a proof")

    name: ClassVar = "split-stages"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        graph, found = self._best(graph, cluster)
        stage_at = {stage: i for i, stage in enumerate(found.order)}
        stages = [stage_at[found.stage_of[i]] for i in range(len(graph.nodes))]
        return replace(
            graph,
            nodes=tuple(replace(n, stage=stage) for n, stage in zip(graph.nodes, stages, strict=True)),
            placement=tuple(found.placement[stage] for stage in found.order),
            split=Split(
                found.value,
                found.lower_bound,
                tuple(Load(load.compute, load.receive, load.send, load.memory) for load in found.loads),
            ),
        )

    def _best(self, graph: Graph, cluster: Cluster) -> tuple[Graph, parts.Solution]:
        """The best split, and the graph with the groups that it keeps together.

        Shared parameters that copies may replace are tried both ways: copied, and kept once where the
        copies do not fit, or where one copy is faster by enough to be worth a device with two stages.
        """
        together = replace(graph, separable=frozenset())
        if not graph.separable:
            return graph, self._solve(graph, cluster)
        try:
            apart = self._solve(graph, cluster)
        except PlanError:
            return together, self._solve(together, cluster)
        if not _copies(graph, apart):
            return together, apart
        try:
            one_copy = self._solve(together, cluster)
        except PlanError:
            return graph, apart
        return (together, one_copy) if one_copy.value < (1 - _WORTH) * apart.value else (graph, apart)

    def _solve(self, graph: Graph, cluster: Cluster) -> parts.Solution:
        try:
            return solve(self.problem(graph, cluster), self.time_limit)
        except parts.Infeasible as e:
            raise _infeasible(e, graph, cluster) from e

    def problem(self, graph: Graph, cluster: Cluster) -> parts.Problem:
        """The graph as a weighted DAG; nodes are named by their index."""
        clock, index = Clock(graph), {node: i for i, node in enumerate(graph.nodes)}
        kinds = list(dict.fromkeys(replace(d, name="", memory=0) for d in cluster.devices))
        behind = memory_behind(graph)

        def readers(value: Value) -> tuple[int, ...]:
            return tuple(index[n] for n in graph.users.get(value, ()))

        groups: dict[str, list[int]] = {}
        for node in graph.nodes:
            if node.group and node.group not in graph.separable:
                groups.setdefault(node.group, []).append(index[node])
        stored = (*graph.params, *graph.constants, *graph.states)
        return parts.Problem(
            nodes=tuple(
                parts.Node(tuple(clock.seconds(n, kind) for kind in kinds), cheap=n.cheap, name=n.results[0].name)
                for n in graph.nodes
            ),
            values=tuple(
                parts.Value(index[n], readers(v), clock.nbytes(v), clock.nbytes(behind.get(v, v)))
                for n in graph.nodes
                for v in n.results
            ),
            weights=tuple(parts.Weight(clock.nbytes(v), readers(v)) for v in stored),
            groups=tuple(map(tuple, groups.values())),
            devices=tuple(
                parts.Device(d.memory, kinds.index(replace(d, name="", memory=0)), name=d.name) for d in cluster.devices
            ),
            links={pair: parts.Link(link.bandwidth, link.latency) for pair, link in cluster.links.items()},
            objective=Objective(self.objective).value,
            several_stages=bool(groups) and not graph.states,
            every_device=True,
            in_flight=self.in_flight,
        )


def _copies(graph: Graph, found: parts.Solution) -> bool:
    """Whether a split puts the readers of a shared parameter on several devices."""
    devices: dict[str, set[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.group in graph.separable:
            devices.setdefault(node.group, set()).add(found.placement[found.stage_of[i]])
    return any(len(on) > 1 for on in devices.values())


def _infeasible(e: parts.Infeasible, graph: Graph, cluster: Cluster) -> PlanError:
    """What is short, on which device, what cannot be divided, and what would do."""
    if e.device < 0:
        return PlanError(f"no plan for {len(cluster.devices)} devices: {e.reason}")
    device = cluster.devices[e.device]
    text = f"{device.name} needs {format_bytes(e.needed)} and has {format_bytes(e.available)}"
    if e.largest_part:
        nodes = [graph.nodes[i] for i in e.largest_part]
        text += f"; the largest part that cannot be divided is {_largest(nodes)} ({format_bytes(e.largest_part_bytes)})"
    fits = [f"on {len(cluster.devices)} devices of {format_bytes_up(e.smallest_memory)}"] if e.smallest_memory else []
    if e.smallest_devices:
        roomiest = max(d.memory for d in cluster.devices)
        fits.append(f"on {e.smallest_devices} devices of {format_bytes(roomiest)}")
    return PlanError(f"{text}. It fits {', or '.join(fits)}." if fits else f"{text}.")


def _largest(nodes: Sequence[Node]) -> str:
    """Name a part by its largest parameter."""
    params = {v for n in nodes for v in n.operands if isinstance(v, Param)}
    if not params:
        return str(nodes[0].where)
    return max(params, key=lambda p: p.type.nbytes).fqns[0]
