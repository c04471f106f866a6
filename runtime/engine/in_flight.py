"""A stream of batches, of which some are in flight at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
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


def each_submitted(submit: Callable[..., Future[Any]], batches: Iterable[Any]) -> Iterator[Future[Any]]:
    """The futures of batches: a tuple is submitted as arguments, a mapping as keywords, anything else as one argument.

    The last one holds the error in reading or checking a batch, if there is one.
    """

    def begun(batch: Any) -> Future[Any]:
        match batch:
            case tuple():
                return submit(*batch)
            case Mapping():
                return submit(**batch)
            case _:
                return submit(batch)

    try:
        yield from map(begun, batches)  # a loop would keep its batch alive
    except Exception as e:
        failed: Future[Any] = Future()
        failed.set_exception(e)
        yield failed
