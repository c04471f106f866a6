"""The lock that graphs are launched under, which interrupts leave free."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from random import uniform
from types import FrameType

import pytest

from runtime.stage.callers import Callers
from runtime.stage.shared_lock import SharedLock


class Interrupts:
    """Interrupts of the main thread, each at some moment of what it does."""

    def __init__(self) -> None:
        self._is_due = False

    def raised(self, signum: int, frame: FrameType | None) -> None:
        if self._is_due:
            self._is_due = False
            raise KeyboardInterrupt

    def amid(self, block: Callable[[], AbstractContextManager[object]]) -> None:
        """Enter the block, and leave it, again and again until an interrupt comes."""
        try:
            self._is_due = True
            signal.setitimer(signal.ITIMER_REAL, uniform(1e-6, 1e-4))
            while True:
                with block():
                    pass
        except KeyboardInterrupt:
            return


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    found = Interrupts()
    before = signal.signal(signal.SIGALRM, found.raised)
    yield found
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_leaves_the_lock_free(interrupts: Interrupts) -> None:
    lock = SharedLock()
    for _ in range(1000):
        interrupts.amid(lock.try_hold)
        assert lock._holders == 0
    with lock.hold(exclusive=True), lock.try_hold() as held:
        assert not held
    with lock.try_hold() as held:
        assert held


def test_an_interrupted_caller_does_not_wait(interrupts: Interrupts) -> None:
    found = Callers()
    for _ in range(1000):
        interrupts.amid(found.waiting)
        assert not found._waiting
