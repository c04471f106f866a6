"""A graph as a problem of the partitioners, and their errors in terms of the graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ir.analysis.called_modules import module_nodes
from ir.analysis.memory import smaller_source
from ir.analysis.pools import updated_in_place
from ir.errors import PlanError
from ir.graph import Graph, Node, Param, State, Value
from ir.machine.cluster import Cluster
from ir.text.units import format_bytes, format_bytes_up
from passes.cost_models.predictions import MeanPredictions, parts_of_calls
from passes.partitioners.problem import (
    DEFAULT_OBJECTIVE,
    Device,
    Infeasible,
    InvalidSplit,
    Link,
    Objective,
    Problem,
    Weight,
    evaluate,
)
from passes.partitioners.problem import Node as ProblemNode
from passes.partitioners.problem import Value as Flow
from passes.partitioners.problem.parts import HeldBytes


@dataclass(frozen=True)
class Wiring:
    """The part of a problem that does not depend on sizes: which nodes read what, and which belong together."""

    nodes: tuple[Node, ...]
    readers: Mapping[Value, tuple[int, ...]]  # the indices of the nodes that read each value
    memory: Mapping[Value, Value]  # for each result that is counted as memory of its own, the tensor that it is of
    groups: tuple[tuple[int, ...], ...]
    of_weights: tuple[tuple[int, int], ...]  # a node that computes from weights alone, and the only one that reads it
    modules: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, graph: Graph) -> Wiring:
        """The wiring of a graph.  The members of a group share a device, unless it is in `graph.separable`."""
        index = {node: i for i, node in enumerate(graph.nodes)}
        in_place = set(updated_in_place(graph))
        counted = {value for state, value in graph.updates if state in in_place}  # as the state, whose memory it is
        behind = smaller_source(graph)
        groups: dict[str, list[int]] = {}
        for i, node in enumerate(graph.nodes):
            if node.group and node.group not in graph.separable:
                groups.setdefault(node.group, []).append(i)
        return cls(
            graph.nodes,
            readers={value: tuple([index[n] for n in users]) for value, users in graph.users.items()},
            memory={v: behind.get(v, v) for n in graph.nodes for v in n.results if v not in counted},
            groups=tuple(map(tuple, groups.values())),
            of_weights=tuple((index[node], index[reader]) for node, reader in _of_weights(graph)),
            modules=tuple(module_nodes(graph).values()),
        )


def as_problem(
    graph: Graph,
    cluster: Cluster,
    objective: Objective = DEFAULT_OBJECTIVE,
    in_flight: int = 1,
    wiring: Wiring | None = None,
) -> Problem:
    """The problem of cutting a graph for its workload; its nodes are the indices of the graph's nodes.

    Times and bytes are those of a call on average: over the workload, and over several programs by their `calls`.
    Memory is that of the largest call.  `wiring` is that of the graph, where it is known.
    """
    predicted, wiring = MeanPredictions(graph), wiring or Wiring.of(graph)
    assert wiring.nodes is graph.nodes
    kinds = list(dict.fromkeys(d.kind for d in cluster.devices))
    times = zip(*(predicted.shares(graph.nodes, kind) for kind in kinds), strict=True)
    part, readers = parts_of_calls(graph), wiring.readers
    usual, others = _links(cluster)

    def held(value: Value) -> HeldBytes:
        if value not in wiring.memory:
            return 0.0
        each = [at.nbytes(wiring.memory[value]) for _, at in predicted.calls]
        return tuple(each) if len(each) > 1 else each[0]

    return Problem(
        nodes=tuple(
            ProblemNode(tuple([t * part[n.program] for t in time]), cheap=n.cheap, name=n.results[0].name)
            for n, time in zip(graph.nodes, times, strict=True)
        ),
        values=tuple(
            Flow(i, readers.get(v, ()), predicted.nbytes(v) * part[n.program], held(v))
            for i, n in enumerate(graph.nodes)
            for v in n.results
        ),
        weights=tuple(
            Weight(predicted.nbytes(v), readers.get(v, ())) for v in (*graph.params, *graph.constants, *graph.states)
        ),
        groups=wiring.groups + wiring.of_weights,
        modules=wiring.modules,
        devices=tuple(Device(d.memory, kinds.index(d.kind), name=d.name) for d in cluster.devices),
        link=usual,
        links=others,
        objective=objective,
        several_stages=bool(wiring.groups) and not graph.states and not graph.programs,
        every_device=True,
        in_flight=in_flight,
        runs=tuple(i for i, (a, b) in enumerate(pairwise(graph.nodes), start=1) if a.program != b.program),
    )


def _of_weights(graph: Graph) -> Iterator[tuple[Node, Node]]:
    """The nodes that compute from weights alone, each with the only node that reads its results.

    To send a weight that the reader could make itself is never worth it, and a cut is found sooner without the choice.
    """
    made, kept = set[Value](), set(graph.kept)
    for node in graph.nodes:
        if not node.operands or not all(isinstance(v, Param) or v in made for v in node.operands):
            continue
        made.update(node.results)
        readers = {reader for v in node.results for reader in graph.users.get(v, ())}
        if len(readers) == 1 and not node.cheap and kept.isdisjoint(node.results):
            yield node, readers.pop()


def _links(cluster: Cluster) -> tuple[Link, dict[tuple[int, int], Link]]:
    """The link that most pairs of devices have, and those of the others."""
    links = {pair: Link(link.bandwidth, link.latency) for pair, link in cluster.links.items()}
    usual = max(links.values(), key=Counter(links.values()).__getitem__, default=Link())
    return usual, {pair: link for pair, link in links.items() if link != usual}


def even_share(problem: Problem) -> float:
    """Seconds of each device if the work were shared evenly, with each node at its fastest."""
    return sum(min(node.time) for node in problem.nodes if not node.cheap) / len(problem.devices)


def fits(problem: Problem, stage_of: Mapping[int, int]) -> bool:
    """Whether a split obeys all rules of a problem, memory included."""
    try:
        evaluate(problem, stage_of)
    except InvalidSplit:
        return False
    return True


def infeasible(e: Infeasible, graph: Graph, cluster: Cluster) -> PlanError:
    """The error where nothing fits: the device that is short, the largest indivisible part, and what would suffice."""
    if e.device < 0:
        tied = _widest_group(graph)
        return PlanError(f"no plan for {len(cluster.devices)} devices: {e.reason}{tied}; ask for fewer stages")
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


def _widest_group(graph: Graph) -> str:
    """The link across most of the program: a state, or a shared parameter, with all nodes between its readers."""
    places: dict[str, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        if node.group:
            places.setdefault(node.group, []).append(i)
    if not places:
        return ""
    name, at = max(places.items(), key=lambda item: item[1][-1] - item[1][0])
    value = next(v for v in (*graph.states, *graph.params) if v.name == name.partition(".")[0])
    kind = "a buffer that forward changes" if isinstance(value, State) else "a shared parameter"
    return f", as `{value.fqns[0]}`, {kind}, ties together {at[-1] - at[0] + 1} of its {len(graph.nodes)} operators"


def _largest(nodes: Sequence[Node]) -> str:
    """The name of a part: its largest parameter, the first of those of one size, or the place of its first node."""
    params = [v for n in nodes for v in n.operands if isinstance(v, Param)]
    if not params:
        return str(nodes[0].where)
    return max(params, key=lambda p: p.type.nbytes).fqns[0]
