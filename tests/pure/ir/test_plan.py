"""A connected graph, cut into stages that are programs of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ir.analysis.memory import peak_bytes, stored_bytes
from ir.cost import Cost
from ir.errors import VerifyError
from ir.graph import Graph, Transfer
from ir.plan import StagePlan, plan_stages
from ir.sizes import at
from passes.cheap.duplicate_cheap import DuplicateCheap
from passes.insert_transfers import InsertTransfers
from passes.propagate_shapes import PropagateShapes
from tests.support.models.graphs import add, captured, graph, linear, param, relu, state, value
from tests.support.models.planning import cut, machine

x, late = value("x"), value("late")
first, second = param("layers.0.weight"), param("layers.1.weight")
a = linear(x, first, "a", cost=Cost(10, 1))
b = relu(a.results[0], "b", cost=Cost(20, 2))
c = linear(b.results[0], second, "c", cost=Cost(30, 3))
d = add(c.results[0], a.results[0], "d", cost=Cost(40, 4))
e = add(d.results[0], late, "e", cost=Cost(50, 5))
GRAPH = graph([x, late], [a, b, c, d, e], (*b.results, *e.results))


def planned(graph: Graph, *stages: int) -> StagePlan:
    devices = machine(max(stages) + 1)
    split = DuplicateCheap().run(cut(graph, stages), devices)
    return plan_stages(InsertTransfers().run(split, devices), devices)


def test_each_stage_is_a_program_of_its_own() -> None:
    plan = planned(GRAPH, 0, 0, 1, 2, 2)
    bodies = [stage.graph for stage in plan.stages]
    assert [[v.name for v in body.inputs] for body in bodies] == [["x"], ["b"], ["late", "c", "a"]]
    assert [[v.name for v in body.outputs] for body in bodies] == [["b", "a"], ["c"], ["e"]]
    assert [[p.fqns[0] for p in body.params] for body in bodies] == [["layers.0.weight"], ["layers.1.weight"], []]
    assert [[v.name for n in body.nodes for v in n.results] for body in bodies] == [["a", "b"], ["c"], ["d", "e"]]
    assert all(body.placement == (0,) and not any(n.stage for n in body.nodes) for body in bodies)
    assert not [n for body in bodies for n in body.nodes if isinstance(n, Transfer)]


def test_each_stage_knows_what_it_receives_and_sends() -> None:
    plan = planned(GRAPH, 0, 0, 1, 2, 2)
    assert [[(t.value.name, t.src) for t in stage.recvs] for stage in plan.stages] == [
        [],
        [("b", 0)],
        [("c", 1), ("a", 0)],
    ]
    assert [[(t.value.name, t.stage) for t in stage.sends] for stage in plan.stages] == [
        [("b", 1), ("a", 2)],
        [("c", 2)],
        [],
    ]
    assert [stage.cost for stage in plan.stages] == [Cost(30, 3, 2), Cost(30, 3), Cost(90, 9, 2)]
    last = plan.stages[2]
    assert [last.source_of(v) for v in last.graph.inputs] == [None, 1, 0]
    assert [plan.stages[0].targets_of(v) for v in plan.stages[0].graph.outputs] == [(1,), (2,)]


def test_a_graph_that_was_not_split_is_a_plan_of_one_stage() -> None:
    [stage] = plan_stages(GRAPH, machine(1)).stages
    assert stage.graph.outputs == GRAPH.outputs
    assert not stage.recvs
    assert not stage.sends


def test_a_copy_has_the_name_of_the_original_in_its_stage() -> None:
    mask = relu(x, "mask", cheap=True)
    one, two = add(late, mask.results[0], "one"), add(late, mask.results[0], "two")
    plan = planned(graph([x, late], [mask, one, two], (*one.results, *two.results)), 0, 0, 1)
    assert [[v.name for n in s.graph.nodes for v in n.results] for s in plan.stages] == [
        ["mask", "one"],
        ["mask", "two"],
    ]


def test_state_and_its_update_are_in_the_stage_that_touches_it() -> None:
    cache = state("cache")
    write = add(a.results[0], cache, "write")
    stateful = graph([x, late], [a, write, b], b.results, updates=((cache, write.results[0]),))
    one, two = planned(stateful, 0, 1, 0).stages
    assert not one.graph.states
    assert not one.graph.updates
    assert two.graph.states == (cache,)
    assert [(s, v.name) for s, v in two.graph.updates] == [(cache, "write")]
    assert two.stored == (cache,)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (cut(GRAPH, [0, 0, 1, 1, 1]), "b reaches stage 1 without a transfer"),
        (replace(GRAPH, placement=()), "stage 0 has no device"),
        (cut(GRAPH, [1, 0, 1, 1, 1]), "a flows back to stage 0"),
    ],
)
def test_a_graph_that_is_not_ready_is_refused(broken: Graph, message: str) -> None:
    with pytest.raises(VerifyError, match=message):
        plan_stages(broken, machine(2))


# ---- memory


def test_stored_bytes_count_each_weight_once() -> None:
    assert stored_bytes([first, second, first]) == 2 * 4 * 16


def test_the_peak_of_a_chain_is_two_values() -> None:
    """x and a; a and b; … each of 32 bytes; the input is let go after its last use."""
    chain = [relu(x, "y0")]
    for i in range(1, 5):
        chain.append(relu(chain[-1].results[0], f"y{i}"))
    assert peak_bytes(graph([x], chain, chain[-1].results)) == 2 * 32


@pytest.mark.parametrize(
    "name",
    [
        "long skips",
        "several results",
        "changes in place",
        "device literals",
        "outputs that nothing computes",
        "what nothing depends on",
    ],
)
def test_the_peak_is_what_counting_at_every_node_finds(name: str) -> None:
    graph = PropagateShapes().run(captured(name), machine(1))
    assert peak_bytes(graph) == counted_peak(graph)


def counted_peak(graph: Graph) -> int:
    """By definition: at each node, all memory that was made before and is read, or wanted, from there on.

    An input that nothing reads stays.
    """
    home = {v: v for v in (*graph.leaves, *graph.producer)}
    for node in graph.nodes:
        for v in node.results if node.view else ():
            home[v] = home[node.operands[0]]
    reads = [{home[v] for v in node.operands} for node in graph.nodes]
    kept = {home[v] for v in graph.kept} | {v for v in graph.inputs if v not in graph.users}
    made = [{home[v] for v in graph.inputs}, *({home[v] for v in n.results} for n in graph.nodes)]
    stored = {*graph.params, *graph.constants, *graph.states}
    peak = 0
    for i in range(len(graph.nodes)):
        wanted = kept.union(made[i + 1], *reads[i:])
        alive = (set().union(*made[: i + 2]) & wanted) - stored
        peak = max(peak, sum(at(v.type.nbytes, graph.hints) for v in alive))
    return peak
