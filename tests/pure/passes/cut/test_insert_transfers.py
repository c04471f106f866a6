"""However a graph is cut, copies and transfers connect it, and its stages compute what the whole does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.analysis.bind import bind_sizes
from ir.analysis.interpret import interpret
from ir.analysis.verify import connected, staged, well_formed
from ir.cost import FREE, Cost
from ir.graph import Call, Graph, Transfer, sizes_of
from ir.plan import StagePlan, plan_stages
from passes.annotate_cost import AnnotateCost
from passes.cheap.duplicate_cheap import DuplicateCheap
from passes.cheap.mark_cheap import MarkCheap
from passes.insert_transfers import InsertTransfers
from passes.propagate_shapes import PropagateShapes
from tests.support.models.graphs import add, captured, graph, relu, value
from tests.support.models.model_cases import CASES
from tests.support.models.planning import cut, machine
from tests.support.seeds import made_once

NAMES = [
    "long skips",
    "a value read by three stages",
    "two outputs from different stages",
    "device literals",
    "outputs that nothing computes",
    "a size in a later stage",
    "several results",
]
STAGES = 4
x = value("x")


def connect(graph: Graph) -> Graph:
    for step in (DuplicateCheap(), InsertTransfers()):
        graph = step.run(graph, machine(STAGES))
    return graph


@made_once
def uncut(name: str) -> Graph:
    graph = captured(name)
    for step in (PropagateShapes(), AnnotateCost(), MarkCheap()):
        graph = step.run(graph, machine(STAGES))
    return graph


@st.composite
def cuts(draw: st.DrawFn, name: str) -> Graph:
    """A graph with any stages that flow forwards; some skip a stage, some are empty."""
    graph = uncut(name)
    stages: list[int] = []
    stage_of: dict[object, int] = {}
    for node in graph.nodes:
        first = max((stage_of[v] for v in node.operands if v in stage_of), default=0)
        stages.append(min(STAGES - 1, first + draw(st.sampled_from([0, 0, 0, 1, 2]))))
        if not node.cheap:
            stage_of |= dict.fromkeys(node.results, stages[-1])
    return cut(graph, stages)


def run_stages(plan: StagePlan, inputs: list[torch.Tensor], weights: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """What comes out when each stage is run alone, on what earlier stages sent it."""
    there = {v.name: tensor for v, tensor in zip(plan.graph.inputs, inputs, strict=True)}
    sizes = {str(s): n for s, n in sizes_of(zip(plan.graph.inputs, inputs, strict=True)).items()}
    for stage in plan.stages:
        body = bind_sizes(stage.graph, sizes)
        made = interpret(body, [there[v.name] for v in body.inputs], weights).outputs
        there |= {v.name: tensor for v, tensor in zip(body.outputs, made, strict=True)}
    return [there[v.copy_of or v.name] for v in plan.graph.outputs]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, derandomize=True, deadline=None)
@given(data=st.data())
def test_any_cut_computes_what_the_whole_does(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    weights = case.build().state_dict()
    connected_graph = connect(data.draw(cuts(name)))
    for invariant in (well_formed, staged, connected):
        invariant(connected_graph)
    plan = plan_stages(connected_graph, machine(STAGES))
    sent = Counter((t.value, t.stage) for t in plan.transfers)
    assert set(sent.values()) <= {1}
    for call in case.calls()[:2]:
        inputs = captured(name).signature.bind(call.args, call.kwargs)
        expected = interpret(captured(name), inputs, weights).outputs
        for found in (interpret(connected_graph, inputs, weights).outputs, run_stages(plan, inputs, weights)):
            assert all(map(torch.equal, expected, found))


def test_one_transfer_for_each_stage_that_reads_straight_from_the_first() -> None:
    a = relu(x, "a")
    b = add(a.results[0], a.results[0], "b")
    c = add(b.results[0], a.results[0], "c")
    d = relu(a.results[0], "d")
    found = InsertTransfers().run(cut(graph([x], [a, b, c, d], (*c.results, *d.results)), [0, 1, 2, 2]), machine(3))
    assert [(n.value.name, n.src, n.stage, n.results[0].name) for n in found.nodes if isinstance(n, Transfer)] == [
        ("a", 0, 1, "a_on1"),
        ("b", 1, 2, "b_on2"),
        ("a", 0, 2, "a_on2"),
    ]
    assert [n.cost for n in found.nodes if isinstance(n, Transfer)] == [Cost(0, 32)] * 3


def test_inputs_and_weights_are_not_sent() -> None:
    a = relu(x, "a")
    b = relu(x, "b")
    found = InsertTransfers().run(cut(graph([x], [a, b], (*a.results, *b.results)), [0, 1]), machine(2))
    assert not [n for n in found.nodes if isinstance(n, Transfer)]


def test_a_name_that_is_taken_is_not_given_again() -> None:
    taken = value("a_on1")
    a = relu(x, "a")
    b = add(a.results[0], taken, "b")
    found = InsertTransfers().run(cut(graph([x, taken], [a, b], b.results), [0, 1]), machine(2))
    well_formed(found)


# ---- copies of what is cheap


def cheap_chain(*stages: int) -> Graph:
    """mask <- relu(x), then mask2 <- relu(mask), which the last two nodes read."""
    mask = relu(x, "mask", cheap=True, cost=FREE)
    wider = relu(mask.results[0], "wider", cheap=True, cost=FREE)
    one, two = (relu(wider.results[0], name) for name in ("one", "two"))
    return cut(graph([x], [mask, wider, one, two], (*one.results, *two.results)), stages)


def made(graph: Graph) -> list[tuple[str, int]]:
    return [(v.name, n.stage) for n in graph.nodes for v in n.results if isinstance(n, Call)]


def test_cheap_values_are_made_in_each_stage_that_reads_them() -> None:
    found = DuplicateCheap().run(cheap_chain(0, 0, 0, 1), machine(2))
    assert made(found) == [
        *(("mask", 0), ("mask_on1", 1), ("wider", 0), ("wider_on1", 1), ("one", 0), ("two", 1)),
    ]
    assert found.nodes[3].operands == found.nodes[1].results
    assert not [n for n in connect(cheap_chain(0, 0, 0, 1)).nodes if isinstance(n, Transfer)]


def test_cheap_values_are_not_made_where_nobody_reads_them() -> None:
    found = DuplicateCheap().run(cheap_chain(0, 0, 1, 1), machine(2))
    assert {stage for _, stage in made(found)} == {1}


def test_a_cheap_output_is_made_once_for_the_caller() -> None:
    mask = relu(x, "mask", cheap=True)
    last = relu(mask.results[0], "last")
    found = DuplicateCheap().run(cut(graph([x], [mask, last], (*mask.results, *last.results)), [0, 1]), machine(2))
    assert made(found) == [("mask", 0), ("mask_on1", 1), ("last", 1)]


def test_what_is_not_cheap_stays_where_it_is() -> None:
    a = relu(x, "a")
    b = relu(a.results[0], "b")
    split = cut(graph([x], [a, b], b.results), [0, 1])
    assert str(DuplicateCheap().run(split, machine(2))) == str(split)
