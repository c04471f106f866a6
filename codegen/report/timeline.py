"""The predicted timeline of a stream: the spans in which each stage works on each microbatch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

SpanKind: TypeAlias = Literal["receive", "compute", "send"]


@dataclass(frozen=True)
class Work:
    """The work of one stage for a microbatch: its seconds, its device, and the stages that it waits for."""

    device: int
    receive: float
    compute: float
    send: float
    sources: tuple[int, ...]

    @property
    def parts(self) -> tuple[tuple[SpanKind, float], ...]:
        return ("receive", self.receive), ("compute", self.compute), ("send", self.send)


class Span(NamedTuple):
    """Something that a stage does, from and to so many seconds after the start."""

    stage: int
    microbatch: int
    kind: SpanKind
    start: float
    end: float


def simulate(stages: Sequence[Work], microbatches: int, in_flight: int) -> tuple[Span, ...]:
    """The stream of `microbatches` in the order of time; at most `in_flight` microbatches have begun and not ended.

    As in the loads of a plan, a device does one thing at a time, transfers included: what it can begin
    first, and of that the oldest.  A value is received while it is being sent.
    """
    stream = _Stream(stages, microbatches, in_flight)
    spans = [span for _ in range(microbatches * len(stages)) for span in stream.advance()]
    return tuple(sorted(spans, key=lambda span: (span.start, span.stage)))


class _Stream:
    """The state of a simulation: the progress of each stage."""

    def __init__(self, stages: Sequence[Work], microbatches: int, in_flight: int) -> None:
        self._stages, self._microbatches, self._in_flight = stages, microbatches, in_flight
        self._next = [0] * len(stages)  # the microbatch that each stage turns to
        self._free = {work.device: 0.0 for work in stages}
        self._computed: dict[tuple[int, int], float] = {}  # stage, microbatch -> when
        self._left = [0.0] * microbatches  # when the last stage so far was through with it

    def advance(self) -> Iterator[Span]:
        """The next span."""
        start, microbatch, stage = min(
            (max(ready, self._free[self._stages[s].device]), self._next[s], s) for s, ready in self._ready()
        )
        for kind, seconds in self._stages[stage].parts:
            end = start + seconds
            if kind == "compute":
                self._computed[stage, microbatch] = end
            if seconds:
                yield Span(stage, microbatch, kind, start, end)
            start = end
        self._next[stage] += 1
        self._free[self._stages[stage].device] = start
        self._left[microbatch] = max(self._left[microbatch], start)

    def _ready(self) -> Iterator[tuple[int, float]]:
        """The stages whose next microbatch has all that it waits for, and since when."""
        through = min(self._next)  # so many microbatches have left all stages
        for stage, (work, microbatch) in enumerate(zip(self._stages, self._next, strict=True)):
            needs = [(source, microbatch) for source in work.sources]
            admitted = microbatch < min(self._microbatches, through + self._in_flight)
            if admitted and all(need in self._computed for need in needs):
                room = self._left[microbatch - self._in_flight] if microbatch >= self._in_flight else 0.0
                yield stage, max([room, *(self._computed[need] for need in needs)])
