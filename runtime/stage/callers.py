"""Threads of callers that wait for results: while one waits, its own code does not use a device.

A call that waits for a whole device, as `torch.accelerator.synchronize()` does, fails in a process that records a
graph, on any thread.  So where stages run in the caller's own process, they are recorded while a caller waits, and it
waits on until that is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

KEPT_AT_MOST = 5.0  # seconds that a caller waits on: a device may hang


class Callers:
    """The callers of all pipelines of this process."""

    def __init__(self) -> None:
        self.are_ours = False  # whether this process runs no other code that uses devices
        self._changed = Condition()
        self._waiting = 0
        self._kept = 0  # blocks that keep callers waiting

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which this thread waits for a result; it is left once nobody keeps callers waiting."""
        with self._changed:
            self._waiting += 1
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.wait_for(lambda: not self._kept, KEPT_AT_MOST)

    @contextmanager
    def kept(self) -> Iterator[bool]:
        """A block in which callers that wait are kept waiting, if there is one; else it is False."""
        with self._changed:
            found = self._waiting > 0
            self._kept += found
        try:
            yield found or self.are_ours
        finally:
            with self._changed:
                self._kept -= found
                self._changed.notify_all()


CALLERS = Callers()
