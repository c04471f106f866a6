"""The time of one batch: the rules of its calls, and splits and bounds against all splits of small random problems."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.partitioners import solve, solver
from passes.partitioners.__main__ import main
from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch import call_table, easier, lighter, listed
from passes.partitioners.one_batch.call_table import CallTable
from passes.partitioners.one_batch.climb import climbed
from passes.partitioners.one_batch.flow import ProgramPaths, Shares
from passes.partitioners.one_batch.repair import made_to_fit
from passes.partitioners.problem import (
    Device,
    InvalidProblem,
    InvalidSplit,
    Link,
    Node,
    Objective,
    Problem,
    Value,
    Weight,
    evaluate,
)
from passes.partitioners.proof.prove import Proof
from passes.partitioners.proof.relaxed import relaxed
from passes.partitioners.search.first_cut import Cut, first_bound
from passes.partitioners.search.lattice import all_ideals
from passes.partitioners.solver import indivisible_parts
from passes.partitioners.units import Core
from tests.support.models.brute_force import optimum

BERT = Path(__file__).parents[2] / "data" / "partition" / "latency" / "bert24_layer.json"
HOST = Device(kind=1, free_transfers=True, node_by_node=True)


@st.composite
def samples(draw: st.DrawFn) -> Problem:
    """Problems like the published ones: equal accelerators with little memory, and a host that runs node by node."""
    n, tenths = draw(st.integers(2, 5)), st.integers(0, 20).map(lambda tenth: tenth / 10)
    host = draw(st.sampled_from((True, True, False)))
    memory = draw(st.sampled_from((inf, 3.0, 5.0)))

    def node() -> Node:
        slow = draw(st.sampled_from((1.0, 2.0, 4.0)))
        time = draw(st.one_of(tenths, st.just(0.0)))
        barred = host and draw(st.integers(0, 7)) == 0
        return Node((inf if barred else time, slow * time), draw(st.sampled_from((0.0, 1.0, 2.0))))

    def value(producer: int) -> Value:
        readers = draw(st.lists(st.integers(producer + 1, n - 1), min_size=1, max_size=3, unique=True))
        return Value(producer, tuple(readers), draw(tenths))

    weights = st.builds(Weight, st.just(1.0), st.sets(st.integers(0, n - 1), min_size=1).map(tuple))
    return Problem(
        nodes=tuple(node() for _ in range(n)),
        values=tuple(value(producer) for producer in range(n - 1) if draw(st.integers(0, 5))),
        weights=tuple(draw(st.lists(weights, max_size=1))),
        groups=draw(st.sampled_from(((), (), ((0, n - 1),), ((0, 1),)))),
        devices=(Device(memory),) * draw(st.integers(1, 2)) + (HOST,) * host,
        link=Link(1.0),
        objective=Objective.latency,
        via_host=draw(st.booleans()),
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(samples())
def test_the_best_split_is_found_and_proven(problem: Problem) -> None:
    best = optimum(problem)
    if best == inf:
        return
    solution = solve(problem)
    assert solution.lower_bound <= best * (1 + 1e-9) <= solution.value * (1 + 2e-9)
    if len(problem.groups) == 0:
        assert solution.value == pytest.approx(best, rel=1e-5)
        assert solution.optimal


@settings(max_examples=40, deadline=None)
@given(samples(), st.integers(0, 6), st.integers(0, 12), st.sampled_from((0.0, 0.1, 10.0)), st.booleans())
def test_bounds_hold_where_the_ideals_are_too_many(
    problem: Problem, kept: int, listed: int, seconds: float, free: bool
) -> None:
    best = optimum(problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lighter, "_FEW_IDEALS", kept)
        patch.setattr(lighter, "_MOST_IDEALS", listed)
        patch.setattr(lighter, "STEPS", 2)
        patch.setattr(easier, "_MOST", ((seconds, 0.0, inf), (seconds, 0.1 * free, inf)))
        if best < inf:
            solution = solve(problem)
            assert solution.lower_bound <= best * (1 + 1e-9) <= solution.value * (1 + 2e-9)


def test_sums_of_32_bits_leave_no_stage_out_that_just_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes and no more fit on the device: the last two of four read a weight, too."""
    size = 1e9 + 7  # bytes, of more digits than a float of 32 bits has
    problem = Problem(
        (Node((1.0, 10.0), size),) * 4,
        tuple(Value(i, (i + 1,), 0.5) for i in range(3)),
        weights=(Weight(size, (2, 3)),),
        devices=(Device(2 * size), HOST),
        link=Link(1.0),
        objective=Objective.latency,
    )
    core = indivisible_parts(problem)
    ideals = all_ideals(core, 100)
    assert ideals is not None
    monkeypatch.setattr(call_table, "_EXACT", 0)
    table = CallTable(relaxed(core), ideals, False, np.zeros(4, dtype=bool))
    kind = next(i for i, c in enumerate(table.model.classes) if not c.node_by_node)
    assert [np.isfinite(table.stages(kind, size)[2][0]).tolist() for size in (1, 2, 3)] == [[True], [True], [False]]


@pytest.mark.parametrize("room", [0, 60, 10**6])
def test_calls_are_the_same_on_the_way_back(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for none of them, for some, and for all."""
    problem = chains(2)
    core, paths = indivisible_parts(problem), ProgramPaths(problem)
    ideals = all_ideals(core, 1000)
    assert ideals is not None
    table = CallTable(relaxed(core), ideals, True, np.zeros(paths.n, dtype=bool))
    shares = Shares(table, paths, paths.along([0, 1, 2, 3, 7]), np.zeros(paths.n))
    monkeypatch.setattr(listed, "_ROOM", room)
    every = listed.ListedCalls(table, shares)
    there = [*every.ascending()]
    assert sum(len(one.weight) for one in every.kept.values()) <= room
    assert (len(every.kept) == len(there)) == (room == 10**6)
    back = [*every.descending()][::-1]
    assert not every.kept
    for one, other in zip(there, back, strict=True):
        assert one.size == other.size
        assert one.weight.tolist() == other.weight.tolist() == shares.of(one.calls).tolist()
        assert (ideals[one.calls.end].sum(axis=1) == one.size).all()
        assert (one.calls.begin == other.calls.begin).all()


def chains(count: int, memory: float = 9.0) -> Problem:
    """A node that `count` chains of three read, a heavy one and two light ones, and a node that reads them."""
    n = 3 * count + 2
    nodes = [Node((1.0 if i % 3 == 1 else 0.01, 10.0 if i % 3 == 1 else 0.1), 1.0) for i in range(n - 1)]
    values = [Value(0, tuple(range(1, n - 1, 3)), 2.0)]
    values += [Value(i, (n - 1 if i % 3 == 0 else i + 1,), 1.5) for i in range(1, n - 1)]
    devices = (Device(memory), Device(memory), HOST)
    nodes.append(Node((0.01, 0.1), 1.0))
    return Problem(
        tuple(nodes), tuple(values), devices=devices, link=Link(1.0), objective=Objective.latency, via_host=True
    )


def test_light_nodes_are_moved_to_what_they_follow() -> None:
    """Each chain becomes one unit, and a stage does not wait for its light nodes where they run alone."""
    problem = chains(3)
    core, paths = indivisible_parts(problem), ProgramPaths(problem)
    stay = np.zeros(paths.n, dtype=bool)
    found = easier.easier(core, paths, 30.0, len(easier._MOST), stay)
    assert np.flatnonzero(found.moved).tolist() == [2, 3, 5, 6, 8, 9]
    assert found.core.n == 5
    assert found.credit[[2, 3]] == pytest.approx([0.1, 0.2])
    stay[3] = True
    assert not easier.easier(core, paths, 30.0, len(easier._MOST), stay).moved[3]


def test_a_bound_from_an_easier_problem_grows_as_nodes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = chains(3, memory=5.0)
    exact = solve(problem)
    assert exact.optimal
    monkeypatch.setattr(lighter, "_QUICK", 30)  # the problem itself has 129 ideals, the easier one 10
    monkeypatch.setattr(lighter, "_MOST_IDEALS", 60)
    found = solve(problem)
    assert exact.value * 0.97 < found.lower_bound <= exact.value <= found.value


def test_a_split_climbs_to_a_better_one_nearby() -> None:
    problem = chains(2)
    poor = (2, 0, 2, 2, 1, 2, 2, 2)  # the light nodes might be on the devices of what they read
    cut = Cut(poor, evaluate(problem, poor))
    better = climbed(indivisible_parts(problem), cut, Deadline(10.0))
    assert better.value == evaluate(problem, better.stages) < cut.value
    assert climbed(indivisible_parts(problem), cut, Deadline(0.0)) == cut


def test_a_search_has_time_left_for_its_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def searched(_core: Core, proof: Proof, deadline: Deadline) -> Proof:
        given.append(deadline.limit)
        return proof

    monkeypatch.setattr(solver, "fastest", searched)
    solve(chains(1), 10.0)
    assert 9.0 < given[0] < 9.8


def test_a_program_of_one_part_has_no_moves() -> None:
    problem = replace(chains(1), groups=((0, 4),))
    core = indivisible_parts(problem)
    assert core.n == 1
    cut = Cut((2,) * 5, evaluate(problem, (2,) * 5))
    assert climbed(core, cut, Deadline(10.0), kicks=True) == cut


def test_a_group_that_runs_node_by_node_orders_nothing() -> None:
    """Of 0 -> 1 and 2 -> 3, node 1 need not wait for 2, though 0 and 3 are on one device."""
    nodes = (Node((inf, 0.0)), Node((2.0, 5.0)), Node((2.0, 5.0)), Node((inf, 0.0)))
    values = (Value(0, (1,), 0.1), Value(2, (3,), 0.1))
    devices = (Device(), Device(), HOST)
    problem = Problem(
        nodes, values, groups=((0, 3),), devices=devices, link=Link(1.0), objective=Objective.latency, via_host=True
    )
    assert evaluate(problem, (2, 0, 1, 2)) == 2.1
    assert solve(problem, 0.0).lower_bound <= 2.1


def test_a_call_waits_for_values_alone() -> None:
    problem = Problem(
        (Node((1.0,)), Node((6.0,))), precedence=((0, 1),), devices=(Device(),) * 2, objective=Objective.latency
    )
    assert first_bound(indivisible_parts(problem)) == evaluate(problem, (0, 1)) == solve(problem).value == 6.0


def test_moved_nodes_leave_a_device_that_is_too_small_for_them() -> None:
    problem = chains(2, memory=5.0)
    moved = np.isin(np.arange(8), (2, 3, 5, 6))
    found = made_to_fit(problem, ProgramPaths(problem), moved, (2, 0, 0, 0, 0, 0, 0, 2))
    assert found
    assert found.stages in ((2, 0, 0, 2, 0, 0, 0, 2), (2, 0, 0, 0, 0, 0, 2, 2))
    assert made_to_fit(problem, ProgramPaths(problem), ~moved, (0, 0, 0, 0, 0, 0, 0, 2)) is None


def test_nothing_leaves_a_host_that_is_too_small() -> None:
    problem = chains(1)
    nodes = (*problem.nodes[:4], replace(problem.nodes[4], bytes=0.0))
    problem = replace(problem, nodes=nodes, devices=(*problem.devices[:2], replace(HOST, memory=3.0)))
    assert made_to_fit(problem, ProgramPaths(problem), np.arange(5) == 4, (2,) * 5) is None


def test_the_rules_of_calls() -> None:
    """A diamond 0 -> (1, 2) -> 3: a stage pays for what it receives and sends; the host runs node by node."""
    nodes = tuple(Node((1.0, 10.0), 1.0) for _ in range(4))
    values = (Value(0, (1, 2), 0.5), Value(1, (3,), 0.25), Value(2, (3,), 0.125))
    devices = (Device(2.0), Device(2.0), HOST)
    problem = Problem(nodes, values, devices=devices, link=Link(1.0), objective=Objective.latency, via_host=True)
    assert evaluate(problem, (2, 2, 2, 2)) == 30.0  # 1 and 2 side by side, transfers free
    assert evaluate(problem, (0, 0, 2, 2)) == 2.0 + 0.5 + 0.25 + 10.0 + 10.0  # its call ends when both values are sent
    assert evaluate(problem, (2, 0, 0, 2)) == 10.0 + (0.5 + 2.0 + 0.25 + 0.125) + 10.0  # one value is received once
    assert evaluate(problem, (2, 0, 1, 2)) == 10.0 + (0.5 + 1.0 + 0.25) + 10.0
    with pytest.raises(InvalidSplit, match="circle"):  # a path leaves device 0 and comes back
        evaluate(problem, (0, 2, 2, 0))
    direct = replace(problem, via_host=False)
    assert evaluate(direct, (0, 0, 1, 1)) == 2.0 + (0.5 + 0.25) + 2.0  # a value takes the time of its way once


def test_a_host_that_runs_node_by_node_has_no_load() -> None:
    with pytest.raises(InvalidProblem, match="runs node by node has no load for the bottleneck"):
        Problem((Node((1.0, 1.0)),), devices=(HOST,))


def test_a_published_instance_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(BERT), "--objective", "latency"]) == 0
    printed = capsys.readouterr().out
    assert "value    100.219\nbound    100.219\ngap      0.00% (optimal)" in printed
    problem = Problem.read(BERT, "latency")
    everything = dict.fromkeys(problem.ids, len(problem.devices) - 1)
    assert evaluate(problem, everything) == pytest.approx(924.06)
    assert solve(problem).value == pytest.approx(100.2185, rel=1e-5)
