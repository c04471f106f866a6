"""Unequal machines: where the cut falls, and in which order the devices are used."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from passes.partitioners import check_capacity, solve
from passes.partitioners.problem import (
    Device,
    Infeasible,
    InvalidProblem,
    InvalidSplit,
    Link,
    Node,
    Problem,
    Value,
    Weight,
    evaluate,
)
from passes.partitioners.problem.copies import inline


def chain(times: list[float], sizes: list[float], **machine: object) -> Problem:
    """Nodes in a row, each also twice as slow on devices of kind 1."""
    nodes = tuple(Node((time, 2 * time), bytes=1.0) for time in times)
    values = tuple(Value(i, (i + 1,), bytes=size, held=size) for i, size in enumerate(sizes))
    return Problem(nodes, values, **machine)  # pyright: ignore[reportArgumentType]


def test_fast_devices_get_twice_the_work_of_slow_ones() -> None:
    devices = (Device(), Device(), Device(kind=1), Device(kind=1))
    problem = chain([1.0] * 12, [0.1] * 11, devices=devices, link=Link(100.0), every_device=True)
    solution = solve(problem)
    assert solution.optimal
    assert [load.compute for load in solution.loads] == [4.0, 4.0, 4.0, 4.0]


def test_the_cut_with_the_least_traffic_falls_on_the_slow_link() -> None:
    """Two hosts of four devices; the program is narrow in one place that is not its middle cut."""
    hosts = {(a, b): Link(100.0 if a // 4 == b // 4 else 1.0) for a in range(8) for b in range(8) if a != b}
    sizes = [4.0] * 15
    sizes[7] = 0.5
    problem = chain([1.0] * 16, sizes, devices=(Device(),) * 8, links=hosts, every_device=True)
    solution = solve(problem, time_limit=20)
    stage = [solution.stage_of[node] for node in range(16)]
    crossing = [i for i in range(15) if stage[i] // 4 != stage[i + 1] // 4]
    assert crossing == [7]
    assert solution.value == pytest.approx(2.54)


def test_the_order_of_devices_is_chosen_unless_it_is_fixed() -> None:
    times, devices = [1.0, 1.0, 1.0, 6.0], (Device(), Device(kind=1))
    free = solve(chain(times, [0.0] * 3, devices=devices))
    fixed = solve(chain(times, [0.0] * 3, devices=devices, fixed_order=True))
    assert (free.value, free.order) == (6.0, (1, 0))
    assert (fixed.value, fixed.order) == (9.0, (0,))


def test_a_large_device_takes_the_large_part() -> None:
    problem = Problem(
        nodes=(Node((1.0,), bytes=6.0), Node((1.0,), bytes=2.0), Node((1.0,), bytes=2.0)),
        devices=(Device(memory=4.0), Device(memory=8.0)),
    )
    solution = solve(problem)
    assert solution.stage_of[0] == 1
    assert solution.optimal


def test_a_shared_weight_is_charged_on_every_device_that_reads_it() -> None:
    problem = chain([1.0] * 4, [0.0] * 3, devices=(Device(memory=10.0),) * 2, weights=(Weight(5.0, (0, 3)),))
    assert [load.memory for load in solve(problem).loads] == [7.0, 7.0]


def test_values_of_programs_that_run_apart_are_not_held_together() -> None:
    """Two programs of two nodes, which send 4 bytes and 6."""
    values = tuple(Value(i, (i + 1,), 1.0, held) for i, held in ((0, 4.0), (2, 6.0)))
    together = Problem((Node((1.0,)),) * 4, values, groups=((0, 2), (1, 3)), devices=(Device(),) * 2, every_device=True)
    for problem, needed in ((together, 10.0), (replace(together, runs=(2,)), 6.0)):
        assert [load.memory for load in solve(problem).loads] == [needed] * 2
    cheap = replace(together, nodes=(Node((1.0,), cheap=True), *together.nodes[1:]), groups=((1, 3),), runs=(2,))
    assert inline(cheap).runs == (1,)


def test_a_cheap_node_is_in_every_stage_that_reads_it() -> None:
    nodes = (Node((9.0,), cheap=True), *(Node((1.0,)) for _ in range(4)))
    values = (Value(0, (1, 4), bytes=100.0), *(Value(i, (i + 1,), bytes=1.0) for i in (1, 2, 3)))
    solution = solve(Problem(nodes, values, devices=(Device(),) * 2, link=Link(10.0)))
    assert solution.value == pytest.approx(2.1)


def test_among_equal_cuts_the_one_that_moves_less_is_taken() -> None:
    sizes, devices = [1.0, 4.0, 2.0], (Device(),) * 3
    solution = solve(chain([9.0, 1.0, 1.0, 1.0], sizes, devices=devices, link=Link(1.0), every_device=True))
    assert solution.value == 10.0
    assert sum(load.receive + load.send for load in solution.loads) == 6.0


def test_infeasible_says_what_is_short() -> None:
    problem = chain([1.0] * 4, [0.0] * 3, devices=(Device(memory=1.5),) * 2)
    message = r"no split fits the memory of the devices: device \d needs 2 bytes of its 1\.5 bytes"
    with pytest.raises(Infeasible, match=message) as raised:
        solve(problem)
    short = raised.value
    assert (short.needed, short.available, short.largest_part_bytes) == (2.0, 1.5, 1.0)
    assert (short.smallest_memory, short.smallest_devices, short.proven) == (2.0, 4, True)


def test_weights_that_no_devices_hold_are_refused_with_what_would_hold_them() -> None:
    problem = chain([1.0] * 4, [0.0] * 3, devices=(Device(memory=1.5),) * 2)
    with pytest.raises(Infeasible) as raised:
        check_capacity(problem)
    short = raised.value
    assert (short.needed, short.smallest_memory, short.smallest_devices, short.proven) == (2.0, 2.0, 4, True)
    check_capacity(replace(problem, devices=(Device(memory=2.0),) * 2))
    check_capacity(replace(problem, devices=(Device(), Device(memory=0.0))))


def test_more_devices_than_parts() -> None:
    with pytest.raises(Infeasible, match="3 devices need a stage each, and the program has 2 indivisible parts"):
        solve(chain([1.0, 1.0], [0.0], devices=(Device(),) * 3, every_device=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"values": (Value(0, (7,), 1.0),)}, "a value names node 7; there are 2"),
        ({"groups": ((0, -1),)}, "a group names node -1; there are 2"),
        ({"devices": ()}, "there are no devices"),
        ({"devices": (Device(kind=3),)}, "node 0 has 1 times for 4 kinds of devices"),
        ({"objective": "energy"}, "the objective is 'energy'; it can be throughput, latency"),
        ({"ids": (1, 1)}, "1 distinct ids for 2 nodes"),
    ],
)
def test_a_problem_that_contradicts_itself(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidProblem, match=re.escape(message)):
        Problem(nodes=(Node((1.0,)), Node((1.0,))), **fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("fields", "stages", "message"),
    [
        ({}, (0, 1, 0), "stages [0, 1] wait for each other in a circle"),
        ({}, (0, 0, 5), "node 2 is in stage 5; there are 2"),
        ({"groups": ((0, 2),)}, (0, 0, 1), "the group of nodes 0, 2 is split over devices [0, 1]"),
        ({"devices": (Device(memory=1.0),) * 2}, (0, 0, 1), "device 0 needs 2 bytes of its 1 bytes"),
        ({"every_device": True}, (0, 0, 0), "devices [1] hold no node"),
        ({"fixed_order": True}, (1, 1, 0), "the stages run in the order [1, 0]; the devices are to be used as listed"),
    ],
)
def test_a_split_that_breaks_a_rule(fields: dict[str, object], stages: tuple[int, ...], message: str) -> None:
    problem = chain([1.0] * 3, [0.0] * 2, **{"devices": (Device(),) * 2, **fields})
    with pytest.raises(InvalidSplit, match=re.escape(message)):
        evaluate(problem, stages)


def test_a_node_on_a_device_that_cannot_run_it() -> None:
    problem = Problem(nodes=(Node((float("inf"), 1.0)),), devices=(Device(), Device(kind=1)))
    with pytest.raises(InvalidSplit, match="node 0 cannot run on device 0"):
        evaluate(problem, (0,))
    assert solve(problem).stage_of == {0: 1}
