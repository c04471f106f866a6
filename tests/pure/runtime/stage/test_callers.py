"""Callers that wait for results are kept waiting while a stage is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from runtime.stage import callers
from runtime.stage.callers import Callers
from tests.support.patience import PATIENCE


@contextmanager
def one_waits(found: Callers, result: Event) -> Iterator[Event]:
    """A block in which another thread waits for the result; the event is set when that thread goes on."""
    waits, went_on = Event(), Event()

    def wait() -> None:
        with found.waiting():
            waits.set()
            assert result.wait(PATIENCE)
        went_on.set()

    thread = Thread(target=wait)
    thread.start()
    assert waits.wait(PATIENCE)
    try:
        yield went_on
    finally:
        result.set()
        thread.join()


def test_nothing_is_recorded_while_no_caller_waits() -> None:
    found = Callers()
    with found.kept() as allowed:
        assert not allowed
    with found.waiting(), found.kept() as allowed:
        assert allowed
    with found.kept() as allowed:
        assert not allowed
    with found.ours(), found.kept() as allowed:  # a command's
        assert allowed
    with found.kept() as allowed:
        assert not allowed


def test_nothing_is_recorded_beside_a_caller_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    found, result = Callers(), Event()
    found.called()
    with one_waits(found, result):
        assert not found.may_be_kept  # this thread may use a device
        with found.kept() as allowed:
            assert not allowed
        with found.waiting():
            assert found.may_be_kept
        assert not found.may_be_kept
        monkeypatch.setattr(callers, "AWAKE", 0.0)  # it has not called for long
        assert found.may_be_kept


def test_threads_that_ended_use_no_device() -> None:
    found = Callers()
    thread = Thread(target=found.called)
    thread.start()
    thread.join()
    with found.waiting():
        assert found.may_be_kept


def test_of_many_threads_those_that_called_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REMEMBERED", 4)
    found = Callers()
    for _ in range(20):
        thread = Thread(target=found.called)
        thread.start()
        thread.join()
    assert len(found._left) <= 5


def test_a_caller_goes_on_once_the_stage_is_recorded() -> None:
    found, result = Callers(), Event()
    with one_waits(found, result) as went_on:
        with found.kept() as allowed:
            assert allowed
            result.set()
            assert not went_on.wait(0.05)
        assert went_on.wait(PATIENCE)


def test_a_caller_waits_for_no_device_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "KEPT_AT_MOST", 0.01)
    found, result = Callers(), Event()
    with one_waits(found, result) as went_on, found.kept():
        result.set()
        assert went_on.wait(PATIENCE)
