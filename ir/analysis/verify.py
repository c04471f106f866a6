"""Invariants of a graph.  Each returns quietly or raises VerifyError, which shows the culprit in the graph's dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from textwrap import indent
from typing import TypeAlias

from ir.cost import UNKNOWN
from ir.errors import CompileError, VerifyError
from ir.graph import Graph, Node, State, Transfer, Value
from ir.text.printer import print_around

Invariant: TypeAlias = Callable[[Graph], None]


@contextmanager
def culprit_shown(graph: Graph) -> Iterator[None]:
    """Adds the lines around the culprit, as the dump of `graph` has them, to an error that names a node of it."""
    try:
        yield
    except CompileError as e:
        if isinstance(e.node, Node):
            e.excerpt = e.excerpt or indent(print_around(graph, e.node), "    ")
        raise


def _shows_culprit(check: Invariant) -> Invariant:
    @wraps(check)
    def checked(graph: Graph) -> None:
        with culprit_shown(graph):
            check(graph)

    return checked


@_shows_culprit
def well_formed(graph: Graph) -> None:
    """Every value is defined once, before its uses, in the program of these, under a name of its own there."""
    stored = {*graph.params, *graph.constants, *graph.states}
    defined = set(graph.leaves)
    home = {v: i for i, program in enumerate(graph.programs) for v in program.inputs}
    for node in graph.nodes:
        for value in node.operands:
            if value not in defined:
                raise VerifyError(f"{value.name} is used before it is defined", node)
            if value not in stored and home.get(value, 0) != node.program:
                raise VerifyError(f"{value.name} is of another program", node)
        for value in node.results:
            if value in defined:
                raise VerifyError(f"{value.name} is defined twice", node)
            defined.add(value)
            home[value] = node.program
    for i, kept in enumerate(program.kept for program in graph.programs or (graph,)):
        for value in kept:
            if value not in graph.producer or home[value] != i:
                raise VerifyError(f"output {value.name} is made by no node")
    names = [(home.get(value, 0), value.name) for value in defined - stored]
    names += [(i, value.name) for i in range(max(len(graph.programs), 1)) for value in stored]
    if len(set(names)) < len(names):
        raise VerifyError(f"two values are named {max(names, key=names.count)[1]}")


@_shows_culprit
def costed(graph: Graph) -> None:
    """Every node has a cost."""
    for node in graph.nodes:
        if node.cost == UNKNOWN:
            raise VerifyError("no cost", node)


@_shows_culprit
def staged(graph: Graph) -> None:
    """Every stage has a device, every group has one device, and no edge goes back."""
    device_of: dict[str, int] = {}
    for node in graph.nodes:
        if node.stage >= len(graph.placement):
            raise VerifyError(f"stage {node.stage} has no device", node)
        device = graph.placement[node.stage]
        if node.group and node.group not in graph.separable and device_of.setdefault(node.group, device) != device:
            raise VerifyError(f"group {node.group} spans devices {device_of[node.group]} and {device}", node)
        for value in node.operands:
            made = graph.producer.get(value, node)
            if made.stage > node.stage and not made.cheap:
                raise VerifyError(f"{value.name} flows back to stage {node.stage}", node)


@_shows_culprit
def stateful(graph: Graph) -> None:
    """The nodes that touch one state share a stage."""
    stage_of: dict[Value, int] = {}
    touches: list[tuple[Value, Node]] = [(v, n) for n in graph.nodes for v in n.operands if isinstance(v, State)]
    touches += [(state, graph.producer[value]) for state, value in graph.updates]
    for state, node in touches:
        if stage_of.setdefault(state, node.stage) != node.stage:
            raise VerifyError(f"state {state.name} is touched by stages {stage_of[state]} and {node.stage}", node)


@_shows_culprit
def connected(graph: Graph) -> None:
    """Every edge between stages is a Transfer."""
    for node in graph.nodes:
        source = node.src if isinstance(node, Transfer) else node.stage
        for value in node.operands:
            made = graph.producer.get(value)
            if made is not None and made.stage != source:
                raise VerifyError(f"{value.name} reaches stage {node.stage} without a transfer", node)
