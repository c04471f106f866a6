"""insert-transfers: a Transfer for every value that crosses stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ir.borders import Namer, name_borders, repeated
from ir.cost import Cost
from ir.graph import Graph, Node, Transfer, Value, rename
from ir.machine.cluster import Cluster
from ir.verify import connected


@dataclass(frozen=True)
class InsertTransfers:
    """One transfer for each value and stage that reads it, straight from the stage that makes it."""

    name: ClassVar = "insert-transfers"
    requires: ClassVar = ()
    ensures: ClassVar = (connected,)

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        moved: dict[tuple[Value, int], Value] = {}
        nodes: list[Node] = []
        namer = Namer(graph.names)

        def local(value: Value, reader: Node) -> Value:
            made_by = graph.producer.get(value)
            if made_by is None or made_by.stage == reader.stage:
                return value
            if (value, reader.stage) not in moved:
                there = moved[value, reader.stage] = repeated(value, reader.stage, namer)
                nodes.append(
                    Transfer(
                        value=value,
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
