"""Work that is shared with copies of this process."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from threading import Event, Thread

import pytest
import torch

from ir.process import shared_work as module
from ir.process.shared_work import MANY_NODES, shared_work


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no threads that libraries, or other tests of this worker, have left."""
    left, running = {*threading.enumerate()}, threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [thread for thread in running() if thread not in left])
    monkeypatch.setattr(module, "_cores", lambda: 2)


def who(item: int) -> tuple[int, int]:
    return item, os.getpid()


def test_results_come_in_order_from_two_processes() -> None:
    found = shared_work(who, range(5), MANY_NODES)
    assert [item for item, _ in found] == [0, 1, 2, 3, 4]
    assert len({process for _, process in found}) == 2
    assert shared_work(who, (), MANY_NODES) == []
    few = shared_work(who, range(5), MANY_NODES - 1)
    assert {process for _, process in few} == {os.getpid()}


def test_results_that_fill_a_pipe_come_whole() -> None:
    assert shared_work(lambda item: bytes([item]) * 1_000_000, range(3), MANY_NODES) == [
        bytes([i]) * 1_000_000 for i in range(3)
    ]


def test_an_error_of_a_copy_is_raised_here_as_it_is() -> None:
    def inverse(item: int) -> float:
        return 1 / item

    with pytest.raises(ZeroDivisionError) as caught:
        shared_work(inverse, (1, 0), MANY_NODES)
    assert caught.traceback[-1].name == "inverse"


def test_what_a_copy_cannot_send_is_computed_here() -> None:
    functions = shared_work(lambda item: lambda: item, range(3), MANY_NODES)
    assert [function() for function in functions] == [0, 1, 2]


def test_a_copy_that_is_killed_is_made_up_for() -> None:
    here = os.getpid()

    def fragile(item: int) -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    assert shared_work(fragile, range(4), MANY_NODES) == [0, 1, 2, 3]


def test_a_warning_of_a_copy_is_shown_here() -> None:
    def warned(item: int) -> int:
        warnings.warn(f"item {item}", UserWarning, stacklevel=1)
        return item

    with pytest.warns(UserWarning, match="item") as shown:
        assert shared_work(warned, range(2), MANY_NODES) == [0, 1]
    assert [str(warning.message) for warning in shown] == ["item 0", "item 1"]


def test_nothing_is_copied_beside_an_accelerator_that_cannot_say_whether_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert {process for _, process in shared_work(who, range(2), MANY_NODES)} == {os.getpid()}


def test_an_interrupt_ends_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    here, fork, copies = os.getpid(), os.fork, list[int]()
    monkeypatch.setattr(os, "fork", lambda: copies.append(fork()) or copies[-1])

    def interrupted(item: int) -> None:
        if os.getpid() == here:
            raise KeyboardInterrupt
        time.sleep(600)

    with pytest.raises(KeyboardInterrupt):
        shared_work(interrupted, range(2), MANY_NODES)
    with pytest.raises(ProcessLookupError):
        os.kill(copies[0], 0)


def test_nothing_is_copied_beside_a_thread_that_may_hold_a_lock() -> None:
    done = Event()
    thread = Thread(target=done.wait)
    thread.start()
    try:
        assert {process for _, process in shared_work(who, range(4), MANY_NODES)} == {os.getpid()}
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("library", ["rich.progress", "tqdm._monitor"])
def test_a_thread_that_draws_progress_hinders_no_copy(library: str) -> None:
    done = Event()
    thread = type("Drawing", (Thread,), {"__module__": library})(target=done.wait)
    thread.start()
    try:
        assert len({process for _, process in shared_work(who, range(4), MANY_NODES)}) > 1
    finally:
        done.set()
        thread.join()
