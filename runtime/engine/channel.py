"""A bounded queue between two threads that can be closed from either side."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """Raised by a channel that is closed.  `__cause__` is the fault that it was closed for, if there was one."""


class Closable(Protocol):
    """Anything that threads may block on, until it is closed."""

    def close(self, cause: Exception | None = None) -> None: ...


class Channel(Generic[T]):
    """First in, first out.  `send` blocks while `capacity` items are inside; without a capacity it never blocks."""

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._cause: Exception | None = None
        self._changed = Condition()

    def send(self, item: T) -> None:
        """Append an item.  Raises ChannelClosed, also when the channel is closed while this blocks."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._is_full())
            self.require_open()
            self._items.append(item)
            self._changed.notify_all()

    def receive(self) -> T:
        """Take the oldest item, once there is one.  Raises ChannelClosed, even if items are left inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            self.require_open()
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, cause: Exception | None = None) -> None:
        """Wake all blocked threads.  Only the first `cause` counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._cause = True, cause
            self._changed.notify_all()

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Block for at most `timeout` seconds.  True if the channel is closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed, timeout)

    def require_open(self) -> None:
        """Raises ChannelClosed if the channel is closed."""
        if self._closed:
            raise ChannelClosed from self._cause

    def drain(self) -> list[T]:
        """Take out all items, also of a closed channel."""
        with self._changed:
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    def _is_full(self) -> bool:
        return self._capacity is not None and len(self._items) >= self._capacity
