"""Operators that are run to see how long they take: each distinct one once, whatever the model does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from ir.cost import Cost, Measured, Time
from ir.errors import PlanError
from ir.graph import Call, Graph
from passes.annotate_cost import AnnotateCost
from passes.cost_models import profiling
from passes.cost_models.predictions import Predictions
from passes.cost_models.profiled import Profiled
from passes.cost_models.profiling import profile
from passes.cost_models.roofline import Roofline
from passes.cost_models.stopwatch import DeviceWatch, HostWatch, Operands
from passes.propagate_shapes import PropagateShapes
from tests.support.models.graphs import captured, graph, linear, param, relu, typed, value
from tests.support.models.planning import DEVICE, machine

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@dataclass
class Counter:
    """In place of a stopwatch: runs each call once, which takes the seconds that this one has."""

    device: torch.device = CPU
    seconds: float = 1.0
    runs: int = 0

    def time(self, call: Callable[[], Any], operands: Operands) -> Time:
        call()
        self.runs += 1
        return Time(self.seconds)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter()

    @contextmanager
    def watch(*_: Any) -> Iterator[Counter]:
        yield counter

    monkeypatch.setattr(profiling, "stopwatch", watch)
    return counter


def costed(found: Graph) -> Graph:
    for step in (PropagateShapes(), AnnotateCost()):
        found = step.run(found, machine(2))
    return found


HARD = (
    "tied weights",
    "a size in a later stage",
    "several results",
    "a sequence of layers",
    "changes in place",
    "autocast and no_grad",
    "constants",
    "device literals",
    "half precision",
    "a cache that calls fill",
)


@pytest.mark.parametrize("name", HARD)
def test_every_operator_of_a_model_can_be_timed(name: str, counter: Counter) -> None:
    found = profile(costed(captured(name)), machine(2), str)
    calls = [node for node in found.nodes if isinstance(node, Call)]
    assert all([m.time for m in node.measured] == [Time(1.0)] for node in calls)
    assert 0 < counter.runs <= len(calls)


def test_what_is_alike_is_run_once(counter: Counter) -> None:
    x, w, v = value("x", 2, 4), param("w"), param("v")
    a, b, c = linear(x, w, "a"), relu(x, "b"), linear(x, v, "c")  # another weight of the same type
    d = linear(value("y", 3, 4), w, "d")
    nodes = [a, b, c, d]
    found = graph([x, d.operands[0]], nodes, [n.results[0] for n in nodes])
    profile(costed(found), machine(2), str)
    assert counter.runs == 3


def test_codes_of_a_byte_are_drawn_in_a_wider_dtype(counter: Counter) -> None:
    codes = replace(param("codes"), type=typed(4, 4, dtype=torch.float8_e4m3fn))
    made = Call(op=torch.ops.aten.to.dtype, args=(codes, torch.float32), results=(value("made", 4, 4),))
    profile(costed(graph([], [made], made.results)), machine(1), str)
    assert counter.runs == 1


def test_a_copy_of_what_lies_across_is_no_view(counter: Counter) -> None:
    """Tensors are laid out as in the model: that of a transposed one is a copy, and takes time."""
    seen: list[tuple[int, ...]] = []
    counter.time = lambda call, operands: seen.append(operands.warm[0].stride()) or Time(1.0)  # type: ignore[method-assign]
    x = value("x", 3, 4)
    aten = torch.ops.aten
    t = Call(op=aten.t.default, args=(x,), results=(value("t", 4, 3),))
    c = Call(op=aten.contiguous.default, args=(t.results[0],), results=(value("c", 4, 3),))
    profile(costed(graph([x], [t, c], [c.results[0]])), machine(1), str)
    assert seen == [(4, 1), (1, 4)]


def test_what_does_not_run_is_named_with_its_place(counter: Counter) -> None:
    x = value("x", 2, 4)
    broken = Call(op=torch.ops.aten.view.default, args=(x, [3, 3]), results=(value("y", 3, 3),), cost=Cost(0, 0))
    with pytest.raises(PlanError, match=r"y = aten.view.default cannot be timed on cpu: .*--cost roofline predicts"):
        profile(graph([x], [broken], [broken.results[0]]), machine(1), str)


def test_a_device_that_is_not_here_is_named(counter: Counter) -> None:
    elsewhere = replace(machine(1), devices=(replace(DEVICE, name="cuda:99"),))
    with pytest.raises(PlanError, match=r"there is no cuda:99 on this host, .* or use --cost roofline"):
        profile(graph([], [], []), elsewhere, str)


def test_what_was_measured_counts_and_grows_as_the_roofline() -> None:
    measured = Measured(DEVICE.kind, Cost(0, 8), Time(3.0, 2.0))
    node = relu(value("x"), "y", cost=Cost(0, 8), measured=(measured,))
    assert Profiled().time(node, Cost(0, 8), replace(DEVICE, name="cpu:1", memory=5)) == Time(3.0, 2.0)
    slow = replace(DEVICE, launch=0.0)
    node = replace(node, measured=(replace(measured, device=slow.kind),))
    assert Profiled().time(node, Cost(0, 24), slow) == pytest.approx(Time(9.0, 2.0))
    other = replace(DEVICE, bandwidth=1.0)
    assert Profiled().time(node, Cost(0, 8), other) == Roofline().time(node, Cost(0, 8), other)


def test_the_plan_is_made_of_what_was_measured(counter: Counter) -> None:
    x = value("x", 2, 4)
    nodes = [relu(x, "a"), relu(x, "b")]
    found = profile(costed(graph([x], nodes, [n.results[0] for n in nodes])), machine(1), str)
    assert Predictions(found).seconds(found.nodes, DEVICE) == 2.0
    assert Predictions(found, Roofline()).seconds(found.nodes, DEVICE) < 1.0


def test_a_stopwatch_runs_a_call_some_times_and_takes_the_median() -> None:
    runs: list[None] = []
    watch = HostWatch(CPU, torch.zeros(1, dtype=torch.uint8))
    time = watch.time(lambda: runs.append(None), Operands([], []))
    assert 4 <= len(runs) <= 8
    assert 0 < time.device < 0.1
    assert time.host == 0


class KernelsOfTwoSeconds(DeviceWatch):
    """A stopwatch whose device takes two seconds for a kernel, and three for the events around a call."""

    def _trials(self, call: Callable[[], Any], host: float, operands: Operands) -> list[float]:
        kernels = call()
        return [3.0 + 2.0 * (len(kernels) if isinstance(kernels, list) else 1)]


def test_what_events_take_is_no_part_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda _: None)
    watch = KernelsOfTwoSeconds(CPU, torch.zeros(1), lambda: None, 1.0)
    assert watch.time(lambda: None, Operands([], [])).device == 5.0
    watch = replace(watch, events=watch.seconds_of_events())
    assert watch.time(lambda: None, Operands([], [])).device == 2.0
