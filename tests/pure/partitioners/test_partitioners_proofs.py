"""Every rule that certifies, against brute force on random relaxed problems, and against each other on larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.sat.python import cp_model

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.problem import Device, Link, Node, Problem, Value, Weight
from passes.partitioners.proof import cp_sat, integer_program, prove
from passes.partitioners.proof.contract import _Contraction, contracted
from passes.partitioners.proof.exact import Exact
from passes.partitioners.proof.ideals import Ideals, TooWide
from passes.partitioners.proof.integer_program import IntegerProgram
from passes.partitioners.proof.relaxed import Relaxed, relaxed
from passes.partitioners.proof.whole.assignment import Assignment
from passes.partitioners.search import first_cut
from passes.partitioners.search.first_cut import Cut, cut_along, judged
from passes.partitioners.search.sweep import Sweep
from passes.partitioners.units import Core, condensed
from tests.support.models.brute_force import optimum

CLOSE = 1e-5


@st.composite
def graphs(draw: st.DrawFn, most_nodes: int, most_devices: int) -> Problem:
    """Problems that are their own relaxation: devices may be empty, links are alike, values hold no memory."""
    n, n_devices = draw(st.integers(2, most_nodes)), draw(st.integers(2, most_devices))
    tenths = st.integers(0, 30).map(lambda tenth: tenth / 10)
    kinds = draw(st.integers(1, 2))
    time = st.one_of(tenths, tenths, tenths, st.just(inf)) if kinds > 1 else tenths
    memory = st.one_of(st.just(inf), st.integers(3, 12).map(float))
    devices = st.builds(Device, memory, st.integers(0, kinds - 1), free_transfers=st.booleans())
    equal, first = draw(st.booleans()), draw(devices)

    def value(producer: int) -> Value:
        span = range(producer + 1, min(n, producer + 1 + draw(st.integers(1, 4))))
        readers = draw(st.lists(st.sampled_from(span), min_size=1, max_size=3, unique=True))
        return Value(producer, tuple(readers), draw(tenths))

    nodes = st.builds(Node, st.tuples(*[time] * kinds), st.sampled_from((0.0, 0.0, 1.0, 2.0)))
    weights = st.builds(Weight, st.just(1.0), st.sets(st.integers(0, n - 1), min_size=1).map(tuple))
    return Problem(
        nodes=tuple(draw(nodes) for _ in range(n)),
        values=tuple(value(producer) for producer in range(n - 1) if draw(st.integers(0, 4))),
        weights=tuple(draw(st.lists(weights, max_size=2))),
        devices=tuple(first if equal else draw(devices) for _ in range(n_devices)),
        link=Link(draw(st.sampled_from((1.0, 4.0))), draw(st.sampled_from((0.0, 0.2)))),
        overlap=draw(st.booleans()),
        fixed_order=draw(st.booleans()),
    )


def row(*times: float, devices: int) -> Problem:
    """Nodes in a row that send each other nothing."""
    values = tuple(Value(i, (i + 1,), 0.0) for i in range(len(times) - 1))
    return Problem(tuple(Node((time,)) for time in times), values, devices=(Device(),) * devices)


def model_of(problem: Problem) -> Relaxed:
    return relaxed(condensed(problem, indivisible(len(problem.nodes), problem.before, problem.groups)))


def by_ideals(model: Relaxed, known: float, contract: bool = True) -> float:
    """The least value under `known`, or `known`."""
    while known > 0:
        small = contracted(model, known) if contract else model
        found = Exact(small).search(known * (1 - 1e-9), 20_000, Deadline(60))
        if found is None:
            break
        known = found.value
    return known


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(graphs(most_nodes=6, most_devices=3), st.sampled_from((1.0, 1.3)), st.booleans())
def test_the_search_of_ideals_finds_the_optimum(problem: Problem, slack: float, contract: bool) -> None:
    best = optimum(problem)
    if best < inf:
        assert by_ideals(model_of(problem), best * slack + 1e-6, contract) == pytest.approx(best, abs=2e-6)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(graphs(most_nodes=8, most_devices=3), st.sampled_from((1.0, 2.0, 5.0, inf)), st.booleans())
def test_all_pairs_that_may_be_fused_are_found_among_those_that_are_looked_at(
    problem: Problem, known: float, backward: bool
) -> None:
    if backward:  # what is read is made below, as gradients are, in a row
        values = tuple(Value(max(v.consumers), (v.producer,), v.bytes) for v in problem.values)
        problem = replace(problem, values=values, precedence=tuple(pairwise(range(len(problem.nodes)))))
    model = model_of(problem)
    quick, thorough = _Contraction(model, known, 0.5), _Contraction(model, known, 0.5)
    thorough.__dict__["_most"] = np.full_like(model.time, inf)
    everything = np.ones(model.core.n, dtype=bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Contraction, "_worth_a_look", lambda _: (everything, everything))
        pairs = thorough.inseparable(), thorough.followers()
    assert (quick.inseparable(), quick.followers()) == pairs


def test_no_pair_is_looked_at_for_units_that_take_longer_than_what_they_send(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[tuple[int, int]] = []
    monkeypatch.setattr(_Contraction, "_no_worse", lambda _, v, u: looked_at.append((v, u)))
    monkeypatch.setattr(_Contraction, "_apart", lambda _, u, v: looked_at.append((u, v)))
    contracted(model_of(row(*[1.0] * 9, devices=2)), 4.0)
    assert not looked_at


def test_that_no_split_is_below_a_value_is_proven_over_fused_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 pairs of nodes is one unit: what the first makes for the second takes as long as all else."""
    nodes = tuple(Node((1.0,)) for _ in range(40))
    values = tuple(Value(i, (i + 1,), 0.0 if i % 2 else 50.0) for i in range(39))
    model = model_of(Problem(nodes, values, devices=(Device(),) * 4, link=Link(1.0)))
    searched = list[int]()
    monkeypatch.setattr(prove, "Exact", lambda small: searched.append(small.core.n) or Exact(small))
    assert prove.none_below(model.core, 9.9, Deadline(60))
    assert not prove.none_below(model.core, 10.1, Deadline(60))
    assert searched == [20, 20]


def braid(n: int) -> Relaxed:
    """Two chains that meet at every fifth node, of more units than are summed at once."""
    values = [Value(i, (i + 2, i + 3) if i % 5 == 0 else (i + 2,), 1.0) for i in range(n - 3)]
    return model_of(Problem(tuple(Node((1.0 + i % 7,)) for i in range(n)), tuple(values), devices=(Device(), Device())))


def test_a_cut_is_searched_below_those_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along every order but the first, and along the order of a proof's cut."""
    model, searched = braid(60), list[tuple[float, float]]()

    def noted(core: Core, order: np.ndarray, devices: Sequence[int], below: float = inf) -> Cut | None:
        cut = cut_along(core, order, devices, below)
        searched.append((below, cut.value if cut else inf))
        return cut

    for module in (first_cut, prove):
        monkeypatch.setattr(module, "cut_along", noted)
    shared = list[int]()
    best = first_cut.first_cut(
        model.core, Deadline(60), lambda f, items, _: shared.append(len(items)) or [*map(f, items)]
    )
    assert best is not None
    assert len(searched) == 1 + sum(shared) > 2
    known = inf
    for below, value in searched:
        assert below == known * (1 - first_cut.PRECISION)
        known = min(known, value)
    assert best.value == known
    found = Exact(model).search(inf, prove.MOST_IDEALS, Deadline(60))
    assert found is not None
    assert prove.realised(model, found.stages, 1.0)
    assert searched[-1] == (1.0 * (1 - first_cut.PRECISION), inf)


def test_rows_of_intervals_are_the_same_whichever_are_wanted() -> None:
    core = braid(60).core
    sweep = Sweep(core, np.arange(core.n))
    every = {row.start: row for row in sweep.rows(inf, lambda _: True)}
    some = [*sweep.rows(inf, lambda start: start % 20 == 7 or start > 50)]  # after many events, and after few
    assert [row.start for row in some] == [7, 27, 47, *range(51, core.n)]
    for row in some:
        assert row.place != every[row.start].place  # among others
        for name in ("compute", "received", "sent", "memory", "modules"):
            alone, known = (getattr(one.intervals, name)[(..., *one.place)] for one in (row, every[row.start]))
            assert known.shape[-1] == core.n - row.start
            assert (alone == known).all()


def test_a_cut_is_found_whose_transfers_are_estimated_higher_than_they_are() -> None:
    """A value that skips a device is estimated over the links to it, which are slower than its own."""
    links = {pair: Link(1.0) for pair in ((0, 1), (1, 2))}
    nodes, devices = (Node((1.0,)),) * 3, (Device(),) * 3
    problem = Problem(nodes, (Value(0, (2,), 4.0),), devices=devices, links=links, every_device=True)
    core = model_of(problem).core
    cut = cut_along(core, np.arange(core.n), range(3), below=1.0)
    assert cut is not None
    assert cut.value == 1.0


def test_no_row_is_made_where_all_splits_so_far_are_worse_than_the_value_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nodes of 1 s that send 9 s of values, but every tenth, at whose ends alone stages can end within 12 s."""
    nodes = tuple(Node((1.0,)) for _ in range(40))
    values = tuple(Value(i, (i + 1,), 0.0 if i % 10 == 9 else 9.0) for i in range(39))
    core = model_of(Problem(nodes, values, devices=(Device(),) * 4, link=Link(1.0), every_device=True)).core
    starts, rows_of = list[int](), Sweep.rows
    monkeypatch.setattr(Sweep, "rows", lambda *given: (starts.append(row.start) or row for row in rows_of(*given)))
    cut = cut_along(core, np.arange(core.n), range(4))
    assert cut is not None
    assert (cut.value, starts) == (10.0, [0, 10, 20, 30])


def test_the_first_guess_is_what_stages_of_whole_nodes_compute_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five nodes of 8 s among short ones, for four devices: an even share is 10.5 s, but one device gets 16 s."""
    nodes = tuple(Node((8.0 if i % 10 == 0 else 0.05,)) for i in range(41))
    values = tuple(Value(i, (i + 1,), 0.0) for i in range(40))
    core = model_of(Problem(nodes, values, devices=(Device(),) * 4, link=Link(1.0), every_device=True)).core
    reaches, rows_of = list[float](), Sweep.rows

    def rows(sweep: Sweep, reach: float, wanted: Any) -> Any:
        reaches.append(reach)
        return rows_of(sweep, reach, wanted)

    monkeypatch.setattr(Sweep, "rows", rows)
    cut = cut_along(core, np.arange(core.n), range(4))
    assert cut is not None
    assert cut.value == pytest.approx(16.45)
    assert len(reaches) == 1
    assert reaches[0] < 16.6


def test_the_weight_above_and_below_each_unit_is_that_of_all_its_ancestors_and_descendants() -> None:
    model = braid(150)
    ideals = Ideals(model)
    above = np.zeros((model.core.n, model.core.n))
    for unit, before in enumerate(model.core.neighbours(reverse=True)):
        above[unit] = above[before].max(axis=0, initial=0)
        above[unit, before] = 1
    assert ideals.least == pytest.approx(ideals.weight + above @ ideals.weight)
    assert ideals.most == pytest.approx(ideals.total - ideals.weight - ideals.weight @ above)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(graphs(most_nodes=7, most_devices=3), st.floats(0.1, 5.0))
def test_what_devices_can_have_done_is_what_they_do_from_one_ideal_to_the_next(
    problem: Problem, seconds: float
) -> None:
    model = model_of(problem)
    ideals = Ideals(model)
    ideals.pace[:] = ideals.pace[0] = 1.0
    members = ideals.within(-1.0, ideals.total + 1.0, np.zeros((1, model.core.n), dtype=bool), inf, 1000)
    weights = members @ ideals.weight
    done, left = {0.0}, {ideals.total}
    devices = np.zeros(3, dtype=np.int64)
    most, least = ideals.done_by(devices, seconds), ideals.left_for(devices, seconds)
    for used in range(1, len(devices) + 1):
        done = {w for w in weights if any(w <= before + seconds for before in done)}
        left = {w for w in weights if any(w >= after - seconds for after in left)}
        assert most[used] >= max(done) - 1e-6
        assert least[used] <= min(left) + 1e-6


def test_devices_that_stop_before_a_long_unit_have_done_less_than_their_seconds_allow() -> None:
    model = model_of(row(1.0, 4.0, 1.0, 4.0, 1.0, devices=2))
    ideals = Ideals(model)
    assert ideals.done_by(np.zeros(2, dtype=np.int64), 5.5).tolist() == [0.0, 5.0, 10.0]
    assert ideals.left_for(np.zeros(2, dtype=np.int64), 5.5).tolist() == [11.0, 6.0, 1.0]
    assert ideals.done_by(np.zeros(2, dtype=np.int64), 4.5).tolist() == [0.0, 1.0, 5.0]


def test_a_large_program_whose_units_have_few_places_is_proven_by_the_integer_program_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = row(4.0, 4.0, 4.0, 4.0, 1.0, 3.0, devices=5)
    core = condensed(problem, indivisible(6, problem.before, ()))
    cut = judged(core, np.array([0, 1, 2, 3, 3, 4]))
    assert cut is not None
    assert cut.value == pytest.approx(5.0)
    monkeypatch.setattr(prove, "MANY_TO_PLACE", 5)
    monkeypatch.setattr(prove, "FEW_CHOICES", 3)
    monkeypatch.setattr(Exact, "search", lambda *_: pytest.fail("ideals were searched"))
    found = prove.proven(core, cut, 0.0, Deadline(60))
    assert found.cut.value == found.bound == pytest.approx(4.0)


def test_a_program_of_fused_units_that_take_longer_than_the_known_split_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Units are fused as no better split parts them; the known one does, and is the best."""
    problem = replace(row(3.4, 3.5, devices=2), values=(Value(0, (1,), 3.0),), link=Link(1.0))
    core = condensed(problem, indivisible(2, problem.before, ()))
    cut = judged(core, np.array([0, 1]))
    assert cut is not None
    monkeypatch.setattr(prove, "MANY_TO_PLACE", 0)
    monkeypatch.setattr(Exact, "search", lambda *_: pytest.fail("ideals were searched"))
    found = prove.proven(core, cut, 0.0, Deadline(60))
    assert (found.cut, found.bound) == (cut, cut.value)


def test_a_search_by_one_worker_that_takes_too_many_steps_goes_on_with_more(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[int]()
    run = cp_sat._run

    def noted(solver: cp_model.CpSolver, program: cp_model.CpModel) -> cp_model.CpSolverStatus:
        started.append(solver.parameters.num_workers)
        return run(solver, program)

    monkeypatch.setattr(cp_sat, "_run", noted)
    monkeypatch.setattr(cp_sat, "STEPS_ALONE", 0.0)
    model = model_of(row(1.0, 2.0, 3.0, 1.0, 2.0, devices=2))
    answer = IntegerProgram(model, 9.0).solve(np.zeros(5, dtype=np.int64), Deadline(60))
    assert answer.bound == pytest.approx(6.0)
    assert started == [1, cp_sat.WORKERS]


def test_of_splits_that_are_as_good_the_same_is_found_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker searches: several would find any of them first."""
    monkeypatch.setattr(cp_sat, "run_solver", lambda *_: pytest.fail("several workers searched"))
    problem = replace(row(2.0, 2.0, 2.0, 2.0, 2.0, devices=2), values=())
    core = condensed(problem, indivisible(5, problem.before, ()))
    bound, placed = Assignment(core, 10.0).solve([0] * 5, Deadline(60))
    assert bound == pytest.approx(6.0)
    assert placed is not None


def test_a_split_that_one_worker_found_is_kept_where_several_find_none_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = cp_sat._run

    def ended(solver: cp_model.CpSolver, program: cp_model.CpModel) -> cp_model.CpSolverStatus:
        if solver.parameters.num_workers > 1:
            return cp_model.UNKNOWN
        assert run(solver, program) == cp_model.OPTIMAL
        return cp_model.FEASIBLE

    monkeypatch.setattr(cp_sat, "_run", ended)
    model = model_of(row(1.0, 2.0, 3.0, 1.0, 2.0, devices=2))
    answer = IntegerProgram(model, 9.0).solve(np.zeros(5, dtype=np.int64), Deadline(60))
    assert answer.bound == pytest.approx(6.0)
    assert np.sum([units for _, units in answer.stages], axis=0).tolist() == [1] * 5


def test_the_size_of_an_integer_program_is_known_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    model = braid(40)
    listed = list[Relaxed]()
    monkeypatch.setattr(integer_program, "Ideals", lambda model: listed.append(model) or Ideals(model))
    program = IntegerProgram(model, 150.0)
    assert program.variables == (program.last - program.first).sum() > 0
    program.solve(np.zeros(model.core.n, dtype=np.int64), Deadline(5))
    assert len(listed) == 1  # of what is above each unit there is a table, which is large


@settings(max_examples=40, deadline=None)
@given(graphs(most_nodes=6, most_devices=3), st.sampled_from((0.8, 0.99, 1.01, 1.3)), st.sampled_from((0, 20_000)))
def test_none_below_is_as_the_optimum_says(problem: Problem, share: float, ideals: int) -> None:
    """By all ideals, and where there are too many by an integer program, with limits of memory and without."""
    best = optimum(problem)
    if not 0 < best < inf:
        return
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(prove, "MOST_IDEALS", ideals)
        assert prove.none_below(model_of(problem).core, best * share, Deadline(60)) == (share < 1)


def test_a_split_that_fits_the_memory_is_not_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without limits of memory the best split of four nodes has two on each device, which hold as many, or one."""
    searched = list[bool]()
    monkeypatch.setattr(prove, "Exact", lambda small: searched.append(small.memory_matters) or Exact(small))

    def none_below(memory: float) -> bool:
        nodes = tuple(Node((1.0,), 1.0) for _ in range(4))
        values = tuple(Value(i, (i + 1,), 0.0) for i in range(3))
        problem = Problem(nodes, values, (Weight(1.0, (0, 1)),), devices=(Device(memory),) * 2)
        return prove.none_below(model_of(problem).core, 2.5, Deadline(60))

    assert not none_below(3.0)
    assert searched == [False]
    assert none_below(2.0)
    assert searched == [False, False, True]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(graphs(most_nodes=6, most_devices=3), st.booleans())
def test_the_integer_program_finds_the_optimum(problem: Problem, contract: bool) -> None:
    best = optimum(problem)
    if not 0 < best < inf:
        return
    known = best * 1.2
    model = contracted(model_of(problem), known) if contract else model_of(problem)
    answer = IntegerProgram(model, known).solve(np.zeros(model.core.n, dtype=np.int64), Deadline(20))
    assert best * (1 - CLOSE) <= answer.bound <= best * (1 + 1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graphs(most_nodes=24, most_devices=5))
def test_both_proofs_agree_on_larger_problems(problem: Problem) -> None:
    model = model_of(problem)
    known = 1e-3 + sum(max(t for t in node.time if t < inf) if min(node.time) < inf else 0.0 for node in problem.nodes)
    known += 2 * sum(problem.link.seconds(value.bytes) for value in problem.values)
    try:
        found = by_ideals(model, known)
    except TooWide:
        return
    answer = IntegerProgram(model, known).solve(np.zeros(model.core.n, dtype=np.int64), Deadline(20))
    assert found == pytest.approx(answer.bound, rel=1e-4, abs=1e-4 * known)
