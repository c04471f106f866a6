"""insert-transfers: a Transfer for every value that crosses stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ir.analysis.borders import Namer, name_borders, repeated
from ir.analysis.verify import connected
from ir.cost import Cost
from ir.graph import Call, Graph, Node, Transfer, Value, rename
from ir.machine.cluster import Cluster
from ir.operators.facts import aten
from passes.pipeline import each_program


@dataclass(frozen=True)
class InsertTransfers:
    """One transfer for each value and stage that reads it, straight from the stage that makes it.

    A view of a state is copied first: its stage changes the state before a later stage reads the view.
    """

    name: ClassVar = "insert-transfers"
    requires: ClassVar = ()
    ensures: ClassVar = (connected,)

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        moved: dict[tuple[Value, int], Value] = {}
        nodes: list[Node] = []
        namer, passing = Namer(graph.names), views_of_states(graph)

        def lasting(value: Value, made_by: Node) -> Value:
            if value not in passing:
                return value
            if (value, made_by.stage) not in moved:
                copy = moved[value, made_by.stage] = replace(value, name=namer(f"{value.name}_copy"))
                call = Call(op=aten.clone.default, args=(value,), results=(copy,), where=made_by.where)
                cost = Cost(0, 2 * value.type.nbytes, 1)
                nodes.append(replace(call, cost=cost, group=made_by.group, stage=made_by.stage))
            return moved[value, made_by.stage]

        def local(value: Value, reader: Node) -> Value:
            made_by = graph.producer.get(value)
            if made_by is None or made_by.stage == reader.stage:
                return value
            if (value, reader.stage) not in moved:
                sent = lasting(value, made_by)
                there = moved[value, reader.stage] = repeated(sent, reader.stage, namer)
                nodes.append(
                    Transfer(
                        value=sent,
                        src=made_by.stage,
                        stage=reader.stage,
                        results=(there,),
                        where=made_by.where,
                        cost=Cost(0, value.type.nbytes),
                    )
                )
            return moved[value, reader.stage]

        for node in graph.nodes:
            nodes.append(rename(node, lambda v, reader=node: local(v, reader)))
        return name_borders(replace(graph, nodes=tuple(nodes)))


def views_of_states(graph: Graph) -> frozenset[Value]:
    """The values that lie in the memory of a state which the program changes."""
    found: set[Value] = {state for state, _ in graph.updates}
    for node in graph.nodes:
        if node.view and not found.isdisjoint(node.operands):
            found.update(node.results)
    return frozenset(found)
