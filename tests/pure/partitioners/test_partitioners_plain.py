"""The plainest split, against brute force on small problems."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ir.process import shared_work as module
from ir.process.shared_work import shared_work
from passes.partitioners import plainest, solve
from passes.partitioners.problem import (
    Crossing,
    Device,
    Infeasible,
    InvalidSplit,
    Link,
    Node,
    Problem,
    Value,
    crossing,
    evaluate,
)
from passes.partitioners.search import plain as plain_module
from passes.partitioners.search.sweep import Sweep

SLACK = 0.03
whole = st.integers(0, 6).map(float)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Small problems with equal devices, and times of which several splits are within the slack."""
    n, n_devices = draw(st.integers(2, 6)), draw(st.integers(1, 3))

    def some(numbers: range, most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=most, unique=True)))

    return Problem(
        nodes=tuple(Node((100.0 + draw(whole) / 4,), cheap=draw(st.integers(0, 5)) == 5) for _ in range(n)),
        values=tuple(Value(a, some(range(a + 1, n), 3), draw(whole)) for a in range(n - 1) if draw(st.integers(0, 5))),
        modules=tuple(some(range(n), 3) for _ in range(draw(st.integers(0, 2)))),
        devices=(Device(),) * n_devices,
        link=Link(bandwidth=draw(st.sampled_from((1.0, 10.0)))),
        overlap=draw(st.booleans()),
        every_device=draw(st.booleans()),
    )


def plainest_of_all(problem: Problem, limit: float) -> tuple[Crossing, float]:
    """The least crossing of all splits of a value up to `limit`, and the least value of those that have it."""
    found: list[tuple[Crossing, float]] = []
    for stages in product(range(len(problem.devices)), repeat=len(problem.nodes)):
        try:
            value = evaluate(problem, dict(enumerate(stages)))
        except InvalidSplit:
            continue
        if value <= limit:
            found.append((crossing(problem, dict(enumerate(stages))), value))
    return min(found)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems())
def test_no_split_within_the_slack_is_plainer(problem: Problem) -> None:
    try:
        best = solve(problem, time_limit=10.0)
    except Infeasible:  # not every device can be used
        return
    plain = plainest(problem, best, SLACK)
    assert evaluate(problem, plain.stage_of) == plain.value <= best.value * (1 + SLACK)
    least, value = plainest_of_all(problem, best.value * (1 + SLACK))
    assert crossing(problem, plain.stage_of) == pytest.approx(least)
    assert plain.value == pytest.approx(value)


def test_no_split_is_plainer_where_few_units_take_longer_than_many() -> None:
    """Sets of units by their number are not in the order of their times."""
    values = (Value(1, (3, 4), 2.0), Value(3, (4,), 4.0))
    nodes = tuple(Node((time,)) for time in (10.0, 10.0, 3.0, 3.0, 5.0))
    problem = Problem(nodes, values, devices=(Device(),) * 2, link=Link(bandwidth=10.0), every_device=True)
    plain = plainest(problem, solve(problem), 0.1)
    assert (crossing(problem, plain.stage_of), plain.value) == (Crossing(0, 0, 0.0), 18.0)


def test_without_slack_it_is_as_good_as_the_best() -> None:
    """Two residual blocks of 3 operators: the best cut lies inside the second, the plain one between them."""
    nodes = tuple(Node((t,)) for t in (1.0, 1.0, 1.0, 1.02, 1.0, 1.0))
    values = [Value(i, (i + 1,), bytes=1.0) for i in range(5)]
    values[0], values[2] = Value(0, (1, 2), 1.0), Value(2, (3, 5), 1.0)
    modules = ((0, 1, 2), (3, 4, 5))
    problem = Problem(nodes, tuple(values), modules=modules, devices=(Device(),) * 2, link=Link(bandwidth=1e6))
    best = solve(problem)
    assert plainest(problem, best, 0.0).value == pytest.approx(best.value)
    plain = plainest(problem, best, SLACK)
    assert crossing(problem, plain.stage_of) == Crossing(1, 0, 1.0)


def test_searches_side_by_side_find_what_they_find_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three chains of uneven nodes that exchange values, which several orders of the nodes cut well."""
    random = Random(0)
    nodes = tuple(Node((random.uniform(1.0, 2.0),)) for _ in range(60))
    values = tuple(Value(i, (i + 3, min(i + 7, 59)), random.uniform(0.0, 1.0)) for i in range(56))
    problem = Problem(nodes, values, devices=(Device(),) * 4, link=Link(bandwidth=10.0))
    found = solve(problem)
    plain = plainest(problem, found, SLACK)
    assert plain != found
    monkeypatch.setattr(module, "MANY_NODES", 0)
    monkeypatch.setattr(module, "_cores", lambda: 2)
    assert solve(problem, share=shared_work) == found
    assert plainest(problem, found, SLACK, share=shared_work) == plain


def test_what_is_still_to_be_received_leaves_out_no_plainest_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uneven nodes in random graphs, of so many units that they are cut along orders."""
    monkeypatch.setattr(plain_module, "FEW_IDEALS", 0)
    for seed in range(30):
        random = Random(seed)
        nodes = tuple(Node((random.uniform(1.0, 1.2),)) for _ in range(24))
        reads = ({i + 1, *(min(i + random.randint(1, 9), 23) for _ in range(random.randint(0, 2)))} for i in range(23))
        values = tuple(Value(i, tuple(sorted(read)), random.uniform(0.0, 0.1)) for i, read in enumerate(reads))
        problem = Problem(
            nodes, values[seed % 3 :], devices=(Device(),) * 4, link=Link(10.0), every_device=seed % 4 > 0
        )
        best = solve(problem)
        plain = plainest(problem, best, 0.2)
        with monkeypatch.context() as patched:
            patched.setattr(plain_module, "_still_received", lambda core, order: None)
            assert plainest(problem, best, 0.2) == plain


def test_plain_cuts_are_searched_from_few_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residual blocks of three nodes: between two of them one value is open, within them two."""
    monkeypatch.setattr(plain_module, "FEW_IDEALS", 0)
    nodes = tuple(Node((1.0,)) for _ in range(60))
    values = tuple(Value(i, (i + 1,) if i % 3 else (i + 1, min(i + 3, 59)), 0.1) for i in range(59))
    problem = Problem(nodes, values, devices=(Device(),) * 4, link=Link(10.0), every_device=True)
    best, starts, rows_of = solve(problem), list[int](), Sweep.rows
    monkeypatch.setattr(Sweep, "rows", lambda *given: (starts.append(row.start) or row for row in rows_of(*given)))
    assert crossing(problem, plainest(problem, best, 0.2).stage_of).values == 3
    assert {start % 3 for start in starts if start} == {1}
