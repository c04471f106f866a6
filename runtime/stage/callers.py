"""Threads of callers that wait for results: while they wait, their own code does not use a device.

A call that waits for a whole device, as `torch.accelerator.synchronize()` does, fails in a process that records a
graph, on any thread.  So where stages run in the caller's own process, they are recorded while a caller waits, no
other one has called a moment ago, and those that wait do so until that is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, RLock, Thread, current_thread

KEPT_AT_MOST = 5.0  # seconds that a caller waits on: a device may hang
REMEMBERED = 256  # threads that have called, before those that have not for long are forgotten
AWAKE = 1.0  # seconds for which a thread that has called is taken to run code that uses devices


class Callers:
    """The callers of all pipelines of this process."""

    def __init__(self) -> None:
        self.are_ours = False  # whether this process runs no other code that uses devices
        self._lock = RLock()  # by itself, as in `SharedLock.try_hold`: an interrupt leaves it free
        self._changed = Condition(self._lock)
        self._waiting: set[Thread] = set()
        self._left: dict[Thread, float] = {}  # of each when it called, or ceased to wait, for the last time
        self._kept = 0  # blocks that keep callers waiting

    @contextmanager
    def ours(self) -> Iterator[None]:
        """A block in which this process runs no other code that uses devices."""
        before, self.are_ours = self.are_ours, True
        try:
            yield
        finally:
            self.are_ours = before

    def called(self) -> None:
        """Note that this thread has called and waits for no result; return once nobody keeps callers waiting."""
        with self._lock:
            self._go_on()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which this thread waits for a result; it is left once nobody keeps callers waiting."""
        thread = current_thread()
        try:
            with self._lock:
                self._waiting.add(thread)
            yield
        finally:
            with self._lock:
                self._waiting.discard(thread)
                self._go_on()

    @property
    def may_be_kept(self) -> bool:
        """Whether `kept` would be True now."""
        with self._lock:
            return self.are_ours or self._all_wait()

    @contextmanager
    def kept(self) -> Iterator[bool]:
        """A block in which callers that wait are kept waiting, if all do; else it is False."""
        with self._lock:
            found = self._all_wait()
            self._kept += found
        try:
            yield found or self.are_ours
        finally:
            with self._lock:
                self._kept -= found
                self._changed.notify_all()

    def _go_on(self) -> None:
        self._left[current_thread()] = time.monotonic()  # from here on nobody begins to keep it waiting
        if len(self._left) > REMEMBERED:
            self._forget_asleep()
        if self._kept:
            self._changed.wait_for(lambda: not self._kept, KEPT_AT_MOST)
            self._left[current_thread()] = time.monotonic()

    def _all_wait(self) -> bool:
        self._forget_asleep()
        return bool(self._waiting) and self._left.keys() <= self._waiting

    def _forget_asleep(self) -> None:
        since = time.monotonic() - AWAKE
        self._left = {thread: left for thread, left in self._left.items() if left > since and thread.is_alive()}


CALLERS = Callers()
