"""The requests that wait, those that run, and what becomes of them when a batch or an engine fails.

A pipeline needs batches in flight, not large ones: as many as it has stages and two more run at once.  A request runs
at once while fewer do; those that wait meanwhile run as one batch where they may.  Nothing waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from runtime.serving.arrays import Array
from runtime.serving.batching import Batching

Arrays = Mapping[str, Array]
WantedOutputs = Mapping[str, Any]  # the outputs that each request of a batch asks for; empty: all
Hand = Callable[[int, int, Arrays, WantedOutputs], None]  # an engine; a batch for it: number, inputs, outputs

SPARE_SLOTS = 2  # batches in flight beyond one a stage: one on its way in, one on its way out
MOST_DEATHS = 2  # engines that a request may end while nothing runs beside it


class Overloaded(Exception):
    """So many requests wait that another one would wait too long.  `retry_after`: seconds until some are done."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} requests wait already; try again in {retry_after} s")
        self.retry_after = retry_after


class Expired(Exception):
    """The request's time is over."""


class NotServing(Exception):
    """The model is not there, and will not be: it failed, or the server ends."""


class RequestFailed(Exception):
    """The model did not take the inputs, which then is the request's `fault`, or it failed on them."""

    def __init__(self, message: str, fault: bool) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class Limits:
    """The most that may wait, and the rows and seconds that requests may have."""

    waiting: int = 256
    rows: int = 16
    seconds: float = 60.0  # for a request, unless it says otherwise


DEFAULT_LIMITS = Limits()


@dataclass(eq=False)
class Request:
    """One request: its inputs, and where its answer goes."""

    arrays: Arrays
    key: Hashable | None  # of requests that may run as one batch; None: it runs by itself
    answer: asyncio.Future[Arrays]
    outputs: tuple[str, ...] = ()  # names and parts of outputs; empty: all
    deaths: int = 0  # of engines that had nothing else to do
    suspect: bool = False  # it was in flight when an engine died: nothing runs beside it
    single: bool = False  # a batch that it was in failed: it runs by itself
    asked: float = field(default_factory=monotonic)
    begun: float = 0.0  # when it began to run last; 0 before

    @property
    def rows(self) -> int:
        return next(iter(self.arrays.values())).shape[0]


Batch = tuple[Request, ...]


@dataclass(eq=False)
class Lane:
    """An engine that is ready: the batches that it may run at once, and those that it runs, by number."""

    slots: int
    running: dict[int, Batch] = field(default_factory=dict)

    @property
    def requests(self) -> list[Request]:
        return [request for batch in self.running.values() for request in batch]

    def has_room_for(self, request: Request) -> bool:
        """Whether a request may begin: one that may have ended an engine runs with nothing beside it."""
        if len(self.running) >= self.slots or any(other.suspect for other in self.requests):
            return False
        return not (request.suspect and self.running)


class Admission:
    """The requests of one engine, or of several that are alike.  All methods are called on one event loop."""

    def __init__(
        self,
        send: Hand,
        limits: Limits,
        observe: Callable[[Batch], None] = lambda _: None,
        timed: Callable[[float, float], None] = lambda waited, ran: None,
        batching: Batching = Batching(),  # noqa: B008 - frozen
    ) -> None:
        """`send`: hands a batch to an engine; `observe`: is told of each batch that begins.

        `timed`: is told, within `answer`, of the seconds that an answered request waited and ran; `batching`: joins
        what runs as one batch.
        """
        self._send = send
        self.limits = limits
        self._observe = observe
        self._timed = timed
        self._batching = batching
        self._lanes: dict[int, Lane] = {}  # of the engines that are ready, by their numbers
        self._waiting: deque[Request] = deque()
        self._numbers = 0
        self._closed = ""
        self._pace = 0.0  # seconds between two finished requests, smoothed
        self._finished = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Batches in flight."""
        return sum(len(lane.running) for lane in self._lanes.values())

    @property
    def slots(self) -> int:
        """Batches that may be in flight."""
        return sum(lane.slots for lane in self._lanes.values())

    async def answer(
        self, arrays: Arrays, key: Hashable | None, seconds: float | None = None, outputs: tuple[str, ...] = ()
    ) -> Arrays:
        """The outputs for these inputs, or those of `outputs`, which are equal for requests of one `key`.

        Raises Overloaded at once, Expired after `seconds`, RequestFailed, or NotServing.
        """
        if self._closed:
            raise NotServing(self._closed)
        if len(self._waiting) >= self.limits.waiting:
            raise Overloaded(len(self._waiting), self._retry_after())
        loop = asyncio.get_running_loop()
        request = Request(arrays, key, loop.create_future(), outputs)
        self._waiting.append(request)
        self._fill()
        limit = self.limits.seconds if seconds is None else seconds
        timer = loop.call_later(limit, self._expire, request, limit)
        try:
            answer = await request.answer
            self._timed(request.begun - request.asked, monotonic() - request.begun)
            return answer
        finally:
            timer.cancel()
            if request in self._waiting:  # its client left
                self._waiting.remove(request)

    # ---- what the engines tell

    def opened(self, stages: int, engine: int = 0) -> None:
        """An engine is ready."""
        self._lanes[engine] = Lane(stages + SPARE_SLOTS)
        self._fill()

    def lost(self, engine: int = 0) -> None:
        """An engine is gone, and with it what ran: it will run again, each request with nothing beside it."""
        lane = self._lanes.pop(engine, None)
        again = lane.requests if lane is not None else []
        for request in reversed([r for r in again if not r.answer.done()]):
            request.deaths += len(again) == 1
            request.suspect = True
            if request.deaths >= MOST_DEATHS:
                self._fail(request, "the model's process ended while it ran this request, and did so again", False)
            else:
                self._waiting.appendleft(request)
        self._fill()

    def done(self, number: int, arrays: Arrays) -> None:
        """A batch is done."""
        batch = self._ended(number)
        outputs = self._outputs(batch, arrays) if batch else ()
        for request, own in zip(batch, outputs, strict=True):
            self._settle(request, own)
        self._fill()

    def failed(self, number: int, message: str, fault: bool) -> None:
        """A batch failed.  Of several requests each runs again by itself, so that only the guilty one fails."""
        batch = self._ended(number)
        if len(batch) == 1:
            self._fail(batch[0], message, fault)
        else:
            for request in reversed(batch):
                request.single = True
                self._waiting.appendleft(request)
        self._fill()

    def close(self, why: str) -> None:
        """No request is taken any more, and those that wait or run get no answer."""
        self._closed = why
        for request in (*self._waiting, *(r for lane in self._lanes.values() for r in lane.requests)):
            if not request.answer.done():
                request.answer.set_exception(NotServing(why))
        self._waiting.clear()
        self._lanes.clear()

    # ---- which batch is next

    def _fill(self) -> None:
        while self._waiting and (engine := self._engine_for(self._waiting[0])) is not None:
            batch = self._next_batch()
            self._numbers += 1
            self._lanes[engine].running[self._numbers] = batch
            self._observe(batch)
            for request in batch:
                request.begun = monotonic()
            arrays = [request.arrays for request in batch]
            self._send(engine, self._numbers, self._batching.joined(arrays), self._wanted(batch))

    def _wanted(self, batch: Batch) -> WantedOutputs:
        """The outputs that the requests of a batch ask for, and the sizes of each request."""
        if not batch[0].outputs:
            return {}
        return {"outputs": batch[0].outputs, "sizes": self._batching.sizes([request.arrays for request in batch])}

    def _outputs(self, batch: Batch, arrays: Arrays) -> Sequence[Arrays]:
        """The outputs of each request of a batch."""
        if batch[0].outputs:
            return [{name: arrays[f"{i} {name}"] for name in request.outputs} for i, request in enumerate(batch)]
        return self._batching.split(arrays, [request.arrays for request in batch])

    def _engine_for(self, request: Request) -> int | None:
        """The engine that has the most room for the next request; None while none has any."""
        free = [engine for engine, lane in self._lanes.items() if lane.has_room_for(request)]
        return min(free, key=lambda engine: len(self._lanes[engine].running), default=None)

    def _ended(self, number: int) -> Batch:
        """The batch of this number, which runs no more; none where its engine was lost meanwhile."""
        for lane in self._lanes.values():
            if number in lane.running:
                return lane.running.pop(number)
        return ()

    def _next_batch(self) -> Batch:
        """The request that waits longest, and others that may run as one batch with it."""
        first = self._waiting.popleft()
        if first.key is None or first.suspect or first.single:
            return (first,)
        batch, rows = [first], first.rows
        for request in tuple(self._waiting):
            if request.key != first.key or request.suspect or request.single:
                continue
            if rows + request.rows > self.limits.rows:
                break
            self._waiting.remove(request)
            batch.append(request)
            rows += request.rows
        return tuple(batch)

    def _settle(self, request: Request, outputs: Arrays) -> None:
        now = monotonic()
        if self._finished:
            self._pace += 0.1 * (min(now - self._finished, 10.0) - self._pace)
        self._finished = now
        if not request.answer.done():
            request.answer.set_result(outputs)

    def _fail(self, request: Request, message: str, fault: bool) -> None:
        if not request.answer.done():
            request.answer.set_exception(RequestFailed(message, fault))

    def _expire(self, request: Request, limit: float) -> None:
        if not request.answer.done():
            request.answer.set_exception(Expired(f"there was no answer within {limit:g} s"))

    def _retry_after(self) -> int:
        return max(1, min(60, math.ceil(self._pace * len(self._waiting))))


def rows_of(batch: Sequence[Request]) -> int:
    """The rows of a batch."""
    return sum(request.rows for request in batch if next(iter(request.arrays.values())).shape)
