"""A bounded queue between two threads that can be closed from either side."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """Nothing will be sent or received here any more.  `__cause__` is what it was closed for, if that went wrong."""


class Closable(Protocol):
    """What others may wait for, until it is closed."""

    def close(self, cause: Exception | None = None) -> None: ...


class Channel(Generic[T]):
    """First in, first out.  `send` waits while CAPACITY items are inside; without one it never waits."""

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._cause: Exception | None = None
        self._changed = Condition()

    def send(self, item: T) -> None:
        """Raises ChannelClosed, also where it is closed while this waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._is_full())
            self.require_open()
            self._items.append(item)
            self._changed.notify_all()

    def receive(self) -> T:
        """Raises ChannelClosed, also where it is closed while this waits and with items left inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            self.require_open()
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, cause: Exception | None = None) -> None:
        """Wake everyone who waits.  The first cause counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._cause = True, cause
            self._changed.notify_all()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Whether it is closed, within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout)

    def require_open(self) -> None:
        """Raises ChannelClosed."""
        if self._closed:
            raise ChannelClosed from self._cause

    def drain(self) -> list[T]:
        """Take out what is left inside."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    def _is_full(self) -> bool:
        return self._capacity is not None and len(self._items) >= self._capacity
