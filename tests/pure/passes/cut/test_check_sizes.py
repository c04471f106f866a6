"""A plan says over which sizes its cut stays close to the best."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy

from ir.cost import Cost
from ir.graph import Graph, Node
from ir.machine.cluster import Cluster
from ir.process import shared_work
from ir.sizes import Dim
from passes.check_sizes import CheckSizes, _Checks
from passes.compilation.sizes.workload import with_workload
from passes.cut.cut_problem import Wiring, as_problem
from passes.options.sizes import read_workload
from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.copies import inline
from passes.split_stages import SplitStages
from tests.support.models.graphs import add, graph, linear, param, relu, value
from tests.support.models.planning import DEVICE, machine

batch = sympy.Symbol("batch", integer=True, positive=True)
MILLISECOND = int(1e-3 * DEVICE.bandwidth)  # in bytes of traffic
x = value("x")


def chain(*milliseconds: Dim, hint: int = 4, low: int = 1, high: int | None = None) -> Graph:
    """Layers whose times depend on the batch."""
    nodes: list[Node] = []
    source = x
    for i, time in enumerate(milliseconds):
        node = linear(source, param(f"w{i}"), f"y{i}")
        nodes.append(replace(node, cost=Cost(0, time * MILLISECOND)))
        [source] = nodes[-1].results
    return graph([x], nodes, [source], hints={batch: hint}, ranges={batch: (low, high)})


def good_for(graph: Graph, cluster: Cluster | None = None, **options: float) -> dict[sympy.Symbol, tuple[int, int]]:
    cluster = cluster or machine(2)
    return dict(CheckSizes(**options).run(SplitStages().run(graph, cluster), cluster).split.good_for)


def test_a_cut_that_is_good_at_every_size() -> None:
    assert good_for(chain(batch, batch, batch, batch, high=64)) == {batch: (1, 64)}


def test_without_a_largest_size_eight_times_the_example() -> None:
    assert good_for(chain(batch, batch, batch, batch, hint=4)) == {batch: (1, 32)}


def test_a_cut_that_is_good_near_the_example_alone() -> None:
    """One layer always takes 96 ms, the others grow with the batch: the best cut moves."""
    assert good_for(chain(96, *[batch] * 24, hint=16, low=8, high=32)) == {batch: (13, 19)}


def test_a_cut_that_is_good_nowhere_else() -> None:
    """Both layers that grow share a device with a batch of 4, where the third takes longest."""
    assert good_for(chain(batch**4, batch**4, 768, high=4096)) == {}


def test_one_device_has_no_cut() -> None:
    assert good_for(chain(batch, batch), machine(1)) == {}


def test_without_dynamic_sizes_there_is_nothing_to_say() -> None:
    assert good_for(replace(chain(1, 1), hints={}, ranges={})) == {}


def test_without_time_nothing_is_claimed() -> None:
    assert good_for(chain(batch, batch, batch, batch), size_limit=0.0) == {}


def better(graph: Graph, **options: float) -> dict[int, float]:
    """By batch, how much better another cut is."""
    done = CheckSizes(**options).run(SplitStages(slack=0.0).run(graph, machine(2)), machine(2))
    return {other.sizes[batch]: other.gain for other in done.split.better}


def test_where_another_cut_is_better_and_by_how_much() -> None:
    """A layer of 96 ms and 24 that grow: for a batch of 16 the first 9 of these are beside it, 4 for 32, 6 for 8 …"""
    layers = chain(96, *[batch] * 24, hint=16, low=8, high=32)

    def value(size: int, beside: int) -> float:
        return max(96 + beside * size, (24 - beside) * size)

    expected = {size: value(size, 9) / min(value(size, beside) for beside in range(24)) - 1 for size in (32, 8)}
    assert better(layers) == pytest.approx(expected, rel=0.02)
    assert list(better(layers)) == sorted(expected, key=lambda size: -expected[size])
    assert better(layers, slack=0.15) == pytest.approx({8: expected[8]}, rel=0.02)
    assert better(layers, size_limit=0.0) == {}


def test_a_cut_for_a_mix_is_measured_against_the_best_of_each_call() -> None:
    """Most calls have a batch of 31, and get what is best for them."""
    layers = with_workload(chain(96, *[batch] * 24, hint=1, low=8, high=32), read_workload("batch=10;batch=31:9"))
    found = better(layers)
    assert list(found) == [8, 10]
    assert found[8] > found[10] > 0.1


def test_two_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = chain(96, *[batch] * 24, hint=16, low=8, high=32)
    alone = SplitStages(slack=0.0).run(layers, machine(2))
    expected = CheckSizes().run(alone, machine(2)).split
    monkeypatch.setattr(shared_work, "MANY_NODES", 0)
    monkeypatch.setattr(shared_work, "_cores", lambda: 2)
    assert CheckSizes().run(alone, machine(2)).split == expected
    assert expected.good_for
    assert expected.better


def test_what_reads_what_is_found_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = SplitStages().run(chain(batch, batch, batch, batch, high=64), machine(2))
    found = list[Graph]()
    of = Wiring.of
    monkeypatch.setattr(Wiring, "of", lambda graph: found.append(graph) or of(graph))
    assert CheckSizes().run(cut, machine(2)).split.good_for == {batch: (1, 64)}
    assert found == [cut]


@pytest.mark.parametrize("cheap_reader", [False, True])
def test_copied_nodes_are_dissolved_once_for_what_a_cut_must_obey_and_what_it_could_be(cheap_reader: bool) -> None:
    """Unless a node is copied in one of the two alone: the reader of what is computed of weights, if it is cheap."""
    made = linear(param("w"), param("v"), "made")
    again = replace(relu(made.results[0], "again"), cheap=cheap_reader)
    near = replace(relu(x, "near"), cheap=True)
    y = add(near.results[0], again.results[0], "y")
    program = graph([x], [made, again, near, y, linear(y.results[0], param("u"), "z")], y.results)
    cluster, wiring = machine(2), Wiring.of(program)
    problem = as_problem(program, cluster, wiring=wiring)
    assert (wiring.groups, problem.groups[0]) == ((), (0, 1))
    as_cut = _Checks(program, cluster, wiring, Deadline(60), 0.0)._as_cut(problem)
    assert inline(as_cut) == inline(replace(problem, groups=()))
    assert (as_cut.nodes is inline(problem).nodes) == (not cheap_reader)
