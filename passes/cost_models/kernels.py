"""Costs of nodes that are one kernel: a launch, and the traffic of what it reads from outside and leaves there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ir.analysis.programs import by_program
from ir.cost import FREE, Cost
from ir.fused.kernel_nodes import read_outside
from ir.graph import Call, Graph, Node, Value


def kernels_of(graph: Graph) -> Mapping[str, Sequence[Call]]:
    """The nodes of each kernel of a graph of one program, by its name."""
    found: dict[str, list[Call]] = {}
    for node in graph.nodes:
        if isinstance(node, Call) and node.kernel:
            found.setdefault(node.kernel, []).append(node)
    return found


def with_kernel_costs(graph: Graph) -> Graph:
    """The graph in which the cost of each kernel is shared by its nodes."""
    return by_program(graph, _with_costs) if any(node.kernel for node in graph.nodes) else graph


def _with_costs(graph: Graph) -> Graph:
    costs: dict[Node, Cost] = {}
    for nodes in kernels_of(graph).values():
        costs |= dict(zip(nodes, _costs(nodes, graph), strict=True))
    return graph.map(lambda node: replace(node, cost=costs[node]) if node in costs else node)


def _costs(nodes: Sequence[Call], graph: Graph) -> list[Cost]:
    """The cost of each node: it reads what none before it has read, and writes what is read outside."""
    written = read_outside(nodes, graph.users, set(graph.kept))
    known: set[Value] = {v for node in nodes for v in node.results}
    costs = []
    for node in nodes:
        new = [v for v in dict.fromkeys(node.operands) if v not in known]
        known.update(new)
        moved = sum(v.type.nbytes for v in (*new, *(v for v in node.results if v in written)))
        costs.append(replace(FREE, bytes=moved, launches=0))
    costs[-1] = replace(costs[-1], launches=1)
    return costs
