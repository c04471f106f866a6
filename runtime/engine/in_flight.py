"""A stream of batches, of which some are in flight at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any


def results_in_order(futures: Iterator[Future[Any]], in_flight: int) -> Iterator[Any]:
    """The results of batches, in order.  `futures` begins the next each time; at most `in_flight` are begun at once."""
    waiting: deque[Future[Any]] = deque()
    try:
        while True:
            waiting.extend(islice(futures, in_flight - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        wait(waiting)
