"""insert-transfers: a Transfer for every value that crosses stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
        inserting = _Inserting(graph)
        for node in graph.nodes:
            inserting.add(node)
        return name_borders(replace(graph, nodes=tuple(inserting.nodes)))


@dataclass
class _Inserting:
    """The nodes of a graph, with what moves values ahead of those that read them."""

    graph: Graph
    nodes: list[Node] = field(default_factory=list)
    moved: dict[tuple[Value, int], Value] = field(default_factory=dict)  # what a value is in a stage
    namer: Namer = field(init=False)
    passing: frozenset[Value] = field(init=False)  # values that are gone once their stage goes on

    def __post_init__(self) -> None:
        self.namer, self.passing = Namer(self.graph.names), views_of_states(self.graph)

    def add(self, node: Node) -> None:
        """Add a node, behind transfers of what it reads of other stages."""
        self.nodes.append(rename(node, lambda v: self._local(v, node.stage)))

    def _local(self, value: Value, stage: int) -> Value:
        """The value as a stage reads it."""
        made_by = self.graph.producer.get(value)
        if made_by is None or made_by.stage == stage:
            return value
        if (value, stage) not in self.moved:
            sent = self._lasting(value, made_by) if value in self.passing else value
            there = self.moved[value, stage] = repeated(sent, stage, self.namer)
            self.nodes.append(
                Transfer(
                    value=sent,
                    src=made_by.stage,
                    stage=stage,
                    results=(there,),
                    where=made_by.where,
                    cost=Cost(0, value.type.nbytes),
                )
            )
        return self.moved[value, stage]

    def _lasting(self, value: Value, made_by: Node) -> Value:
        """A copy of a value in the stage that makes it."""
        if (value, made_by.stage) not in self.moved:
            copy = self.moved[value, made_by.stage] = replace(value, name=self.namer(f"{value.name}_copy"))
            call = Call(op=aten.clone.default, args=(value,), results=(copy,), where=made_by.where)
            cost = Cost(0, 2 * value.type.nbytes, 1)
            self.nodes.append(replace(call, cost=cost, group=made_by.group, stage=made_by.stage))
        return self.moved[value, made_by.stage]


def views_of_states(graph: Graph) -> frozenset[Value]:
    """The values that lie in the memory of a state which the program changes."""
    found: set[Value] = {state for state, _ in graph.updates}
    for node in graph.nodes:
        if node.view and not found.isdisjoint(node.operands):
            found.update(node.results)
    return frozenset(found)
