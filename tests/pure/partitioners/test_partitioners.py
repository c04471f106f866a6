"""The partitioners against brute force: whatever is claimed must hold on small random problems."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import inf, isinf
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.partitioners import problem as problem_words
from passes.partitioners import solve
from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.problem import (
    Device,
    Infeasible,
    InvalidSplit,
    Link,
    Node,
    Objective,
    Problem,
    Solution,
    Value,
    Weight,
    evaluate,
)
from passes.partitioners.problem.copies import inline
from passes.partitioners.problem.memory import held_in, peaks
from passes.partitioners.proof.whole import any_split as whole_program
from passes.partitioners.proof.whole.any_split import any_split
from passes.partitioners.rivals import Rivals
from passes.partitioners.units import condensed

whole = st.integers(0, 6).map(float)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Small problems with every feature the model has, few enough nodes to try all splits."""
    n = draw(st.integers(2, 5))
    n_devices = draw(st.integers(1, 3))
    kinds = draw(st.integers(1, 2))
    memory = st.one_of(st.just(inf), st.integers(4, 25).map(float))
    time = st.one_of(whole, whole, whole, st.just(inf)) if kinds > 1 else whole
    link = st.builds(Link, bandwidth=st.sampled_from((1.0, 2.0, inf)), latency=st.sampled_from((0.0, 0.5)))
    objective = draw(st.sampled_from((Objective.throughput, Objective.throughput, Objective.latency)))
    alone = st.booleans() if objective is Objective.latency else st.just(False)
    devices = st.builds(Device, memory, st.integers(0, kinds - 1), free_transfers=st.booleans(), node_by_node=alone)
    equal = draw(st.booleans())
    first = draw(devices)
    pairs = [(a, b) for a in range(n_devices) for b in range(n_devices) if a != b]
    cheap = st.sampled_from((False, False, False, True))

    def node(number: int) -> Node:
        copied = draw(cheap)
        times = draw(st.tuples(*[whole if copied else time] * kinds))
        return Node(times, draw(whole), copied)

    return Problem(
        nodes=tuple(map(node, range(n))),
        values=tuple(draw(_value(a, n)) for a in range(n - 1) if draw(st.integers(0, 3))),
        weights=tuple(draw(st.lists(st.builds(Weight, whole, _some(range(n), 3)), max_size=2))),
        groups=tuple(draw(st.lists(_some(range(n), 2), max_size=1))),
        devices=tuple(first if equal else draw(devices) for _ in range(n_devices)),
        link=draw(link),
        links={pair: draw(link) for pair in pairs} if draw(st.integers(0, 3)) == 3 else {},
        objective=objective,
        overlap=draw(st.booleans()),
        several_stages=draw(st.booleans()),
        every_device=draw(st.booleans()),
        fixed_order=draw(st.booleans()),
        in_flight=draw(st.integers(1, 2)),
    )


def _some(numbers: range, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.sampled_from(numbers), min_size=1, max_size=most, unique=True).map(tuple)


def _value(producer: int, n: int) -> st.SearchStrategy[Value]:
    held = st.one_of(whole, whole, st.tuples(whole, whole))  # in two kinds of batches
    return st.builds(Value, st.just(producer), _some(range(producer + 1, n), 3), whole, held)


def brute_force(problem: Problem) -> float:
    """The least value of any split, inf if there is none."""
    best, problem = inf, inline(problem)
    for stages in product(range(problem.n_stages), repeat=len(problem.nodes)):
        try:
            best = min(best, evaluate(problem, dict(zip(problem.names, stages, strict=True))))
        except InvalidSplit:
            continue
    return best


T = TypeVar("T")


def attempt(problem: Problem) -> Solution | Infeasible:
    return attempt_of(lambda: solve(problem, time_limit=100.0))


def attempt_of(search: Callable[[], T]) -> T | Infeasible:
    try:
        return search()
    except Infeasible as short:
        return short


@pytest.mark.parametrize("group", [(1, 2), (0, 2)])
def test_a_group_that_no_device_can_run(group: tuple[int, int]) -> None:
    nodes = tuple(map(Node, [(0.0, inf), (0.0, inf), (inf, 0.0)]))
    problem = Problem(nodes, groups=(group,), devices=(Device(kind=0), Device(kind=1)), several_stages=True)
    assert isinstance(attempt(problem), Infeasible)


HOST = Device(kind=1, free_transfers=True, node_by_node=True)


@pytest.mark.parametrize(
    ("problem", "best"),
    [
        (  # the part that needs more memory is listed first, and must run last
            Problem(
                (Node((0.0,), 5.0), Node((0.0,)), Node((0.0,))),
                groups=((0, 1),),
                devices=(Device(4.0), Device()),
                several_stages=True,
                every_device=True,
                fixed_order=True,
            ),
            0.0,
        ),
        (  # the host runs both ends of a chain, and cannot run its middle
            Problem(
                (Node((inf, 1.0)), Node((1.0, inf)), Node((inf, 1.0))),
                (Value(0, (1,), 0.0), Value(1, (2,), 0.0)),
                groups=((0, 2),),
                devices=(Device(), HOST),
                objective=Objective.latency,
                every_device=True,
            ),
            3.0,
        ),
    ],
    ids=["unordered parts", "a group on a host"],
)
def test_a_split_that_no_chain_of_stages_has(problem: Problem, best: float) -> None:
    found = solve(problem)
    assert found.value == brute_force(problem) == best
    assert found.optimal


def test_none_was_found_is_no_proof() -> None:
    """Without time, nothing is said to be impossible."""
    nodes = tuple(Node((1.0,), size) for size in (1.0, 2.0, 1.0, 3.0, 1.0, 4.0, 1.0, 2.0))
    problem = Problem(nodes, devices=(Device(6.0),) * 3, groups=((0, 7), (1, 6)), several_stages=True)
    assert solve(problem).value > 0
    core = condensed(problem, indivisible(8, (), ()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_program, "MOST_TERMS", 0)
        with pytest.raises(Infeasible, match="no split was found") as raised:
            any_split(core, Deadline(0.0))
    assert not raised.value.proven


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems())
def test_what_solve_claims_holds(problem: Problem) -> None:
    best = brute_force(problem)
    solution = attempt(problem)
    if isinstance(solution, Infeasible):
        assert best == inf
        assert solution.proven
        return
    assert evaluate(problem, solution.stage_of) == solution.value
    assert solution.lower_bound <= best * (1 + 1e-6) <= solution.value * (1 + 2e-6)
    if solution.optimal:
        assert solution.value == pytest.approx(best, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_a_split_is_found_where_there_is_one(problem: Problem) -> None:
    """By the program of all rules alone, which few of the problems above need."""
    whole = inline(problem)
    core = condensed(whole, indivisible(len(whole.nodes), whole.before, ()))
    found = attempt_of(lambda: any_split(core, Deadline(100.0)))
    if isinstance(found, Infeasible):
        assert found.proven
        assert brute_force(problem) == inf
        return
    assert evaluate(whole, dict(zip(whole.names, found.stages, strict=True))) == found.value


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(problems(), st.floats(0.8, 1.3))
def test_rivals_of_a_value(problem: Problem, share: float) -> None:
    """What is found below a value is there, and what is proven not to be there is not."""
    best = brute_force(problem)
    rivals, value = Rivals(problem, Deadline(20.0)), 1.0 if isinf(best) else best * share
    try:
        found, none_below = rivals.found_below(value), rivals.none_below(value)
    except Infeasible:
        assert isinf(best)
        return
    assert found >= best * (1 - 1e-6)
    assert found < value or isinf(found)
    assert not none_below or best >= value * (1 - 1e-6)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(problems())
def test_memory_is_that_of_the_kind_of_batch_that_needs_most(problem: Problem) -> None:
    problem = inline(problem)
    each = [
        replace(problem, values=tuple(v._replace(held=held_in(v.held, kind)) for v in problem.values), remade=remade)
        for kind in (0, 1)
        for remade in [tuple(replace(v, held=held_in(v.held, kind)) for v in problem.remade)]
    ]
    for stages in product(range(problem.n_stages), repeat=len(problem.nodes)):
        found = [peaks(alone, stages) for alone in each]
        stated = peaks(problem, stages)
        assert {s: stated.get(s, 0.0) for s in stages} == {s: max(f.get(s, 0.0) for f in found) for s in stages}


def test_copied_nodes_are_dissolved_once() -> None:
    nodes = (Node((1.0,)), Node((0.0,), cheap=True), Node((1.0,)))
    problem = Problem(nodes, (Value(0, (1,), 1.0), Value(1, (2,), 1.0)))
    assert inline(problem) is inline(problem)
    assert len(inline(problem).nodes) == 2
    assert len(inline(replace(problem, groups=((1, 2),))).nodes) == 3
    assert inline(inline(problem)) is inline(problem)


def test_the_example_of_the_docstring() -> None:
    assert doctest.testmod(problem_words).failed == 0


def test_a_tied_embedding_wraps_around() -> None:
    """Both ends on one device, and the chain between them still divided."""
    n = 22
    problem = Problem(
        nodes=(Node((1.0,)), *(Node((4.0,)) for _ in range(n - 2)), Node((3.0,))),
        values=tuple(Value(i, (i + 1,), bytes=1.0) for i in range(n - 1)),
        groups=((0, n - 1),),
        devices=(Device(),) * 4,
        link=Link(bandwidth=10.0),
        several_stages=True,
        every_device=True,
    )
    solution = solve(problem)
    assert solution.order == (0, 1, 2, 3, 4)
    assert solution.placement[0] == solution.placement[4] == 0
    assert problem.stages_on([solution.placement[stage] for stage in solution.order]) == solution.order
    assert solution.value == pytest.approx(24.2)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(2, 12).map(float))
def test_what_an_infeasible_problem_is_told_to_need_suffices(problem: Problem, memory: float) -> None:
    devices = tuple(Device(memory) for _ in problem.devices)
    nodes = tuple(replace(node, time=(1.0, 1.0)) for node in problem.nodes)
    problem = replace(problem, nodes=nodes, devices=devices, links={}, groups=())
    short = attempt(problem)
    if not isinstance(short, Infeasible) or short.device < 0:
        return
    assert short.needed > short.available == memory
    assert str(short)
    solve(replace(problem, devices=(Device(short.smallest_memory),) * len(devices)))
    if short.smallest_devices:
        solve(replace(problem, devices=(Device(memory),) * short.smallest_devices))
