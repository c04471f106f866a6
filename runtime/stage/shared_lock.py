"""A readers-writer lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SharedLock:
    """A readers-writer lock that prefers the writer: while one waits, no new reader gets the lock."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._holders = 0
        self._exclusive = False  # whether a writer holds the lock or waits for it

    @contextmanager
    def hold(self, exclusive: bool) -> Iterator[None]:
        """Hold the lock within the block: with others, or, if `exclusive`, alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive)
            self._exclusive = exclusive
            if exclusive:
                self._changed.wait_for(lambda: self._holders == 0)
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._exclusive = self._exclusive and not exclusive
                self._changed.notify_all()
