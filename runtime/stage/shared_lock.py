"""A readers-writer lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, RLock


class SharedLock:
    """A readers-writer lock that prefers the writer: while one waits, no new reader gets the lock."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._holders = 0
        self._exclusive = False  # whether a writer holds the lock or waits for it

    @contextmanager
    def hold(self, exclusive: bool) -> Iterator[None]:
        """Hold the lock within the block: with others, or, if `exclusive`, alone."""
        with self._changed:
            while self._exclusive:
                self._changed.wait()
            self._exclusive = exclusive
            if exclusive:
                self._changed.wait_for(lambda: self._holders == 0)
            self._holders += 1
        try:
            yield
        finally:
            self._let_go(exclusive)

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold the lock with others within the block, if it is True: it is not waited for."""
        free = False
        try:
            # Interrupts of a main thread come where a call begins or ends, so none comes amid what belongs together
            # here: this lock is taken and let go without a Python function, as a condition would not be.
            with self._lock:
                free = not self._exclusive
                self._holders += free
            yield free
        finally:
            with self._lock:
                self._holders -= free
                if self._exclusive:
                    self._changed.notify_all()

    def _let_go(self, exclusive: bool) -> None:
        with self._changed:
            self._holders -= 1
            if self._exclusive:  # nobody waits for the lock but for one who holds it alone, or wants to
                self._exclusive = not exclusive
                self._changed.notify_all()
