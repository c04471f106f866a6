"""Silence that is counted only while this process runs: what was stopped, or got no core, blames nobody for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from runtime.awake_clock import AwakeClock
from runtime.engine.watchdog import Watchdog
from runtime.serving.engines import supervisor as supervisor_module
from runtime.serving.engines.supervisor import EngineState, Supervisor

STOPPED = 3600.0  # seconds from one look to the next


class Time:
    """`time.monotonic` that goes on as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("runtime.awake_clock.time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_a_look_that_comes_late_counts_as_two_ticks(time: Time) -> None:
    clock, found = AwakeClock(0.5), list[float]()
    for seconds in (0.5, 0.75, STOPPED, 0.5):
        time.now += seconds
        found.append(clock.passed())
    assert found == [0.5, 0.75, 1.0, 0.5]


@pytest.mark.parametrize(
    ("waits", "given_up"),
    [([0.1] * 12, True), ([0.1, 0.1, STOPPED, 0.1, 0.1], False), ([0.1, *[STOPPED] * 6], True)],
)
def test_a_stage_is_not_given_up_for_the_time_in_which_nothing_ran(
    time: Time, waits: Sequence[float], given_up: bool
) -> None:
    left, closed = iter(waits), Mock()

    def wait(tick: float) -> bool:
        time.now += (seconds := next(left, 0.0))
        return not seconds

    Watchdog([Mock(busy_with=7)], [closed], 1.0, Mock(wait=wait)).run()
    assert closed.close.called is given_up


@pytest.mark.parametrize(("beats", "killed"), [(True, False), (False, True)])
def test_an_engine_is_not_killed_for_the_time_in_which_its_front_was_stopped(
    time: Time, monkeypatch: pytest.MonkeyPatch, beats: bool, killed: bool
) -> None:
    """Its signs of life of that time are read a moment later."""
    engine = Supervisor([], Mock(), Mock())
    engine.status.state, engine._process, engine._silent = EngineState.READY, Mock(), 0.0

    def seconds() -> Iterator[float]:
        yield STOPPED
        for _ in range(100):
            engine._silent = 0.0 if beats else engine._silent
            yield 0.1

    passing = seconds()

    async def sleep(_: float) -> None:
        if (passed := next(passing, None)) is None:
            raise asyncio.CancelledError
        time.now += passed

    monkeypatch.setattr(supervisor_module, "asyncio", SimpleNamespace(sleep=sleep))
    try:
        asyncio.run(engine._watch())
    except asyncio.CancelledError:
        assert beats
    assert engine._process.kill.called is killed
