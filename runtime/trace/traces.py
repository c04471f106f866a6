"""Traces: the times of every batch in every stage, taken only while a trace is on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch

from runtime.device.clock import DeviceClock, Instant, clock_of
from runtime.manifest.manifest import Manifest, ProgramEntry
from runtime.stage.stage import LoadedStage


@dataclass(frozen=True)
class Run:
    """One batch in one stage.  Times are in seconds since the first batch of the trace arrived."""

    stage: int
    batch: int  # 0 is the first one of the trace
    arrived: float  # when all inputs existed
    started: float  # when they were on the stage's device
    ended: float  # when all outputs existed
    received: Mapping[int | None, int]  # bytes from each stage; None is the caller
    sent: int | None  # bytes to all targets; None if the stage raised
    program: str = ""  # the program that ran, where the artifact has several; of a decoder, "prefill" or "decode"


class _Marks(NamedTuple):
    """A run whose end the device may not have reached yet."""

    batch: int
    arrived: Instant
    started: Instant
    ended: Instant
    received: Mapping[int | None, int]
    sent: int | None
    program: str


class StageTrace:
    """The runs of one stage."""

    def __init__(self, stage: int, device: torch.device, programs: Sequence[ProgramEntry], decodes: bool) -> None:
        """`decodes`: whether the artifact is a decoder's."""
        self.stage = stage
        self.device = device
        self._sources = [[r.source for r in program.stages[stage].receives] for program in programs]  # None: the caller
        self._names = [program.name if len(programs) > 1 else "" for program in programs]
        self._decodes = decodes
        self._clock: DeviceClock  # set by `begin`
        self._batches = 0
        self._marks: list[_Marks] = []

    def begin(self) -> None:
        """Start the clock.  To be called on the thread that runs the stage."""
        self._clock = clock_of(self.device)

    def run(
        self,
        stage: LoadedStage,
        tensors: Sequence[torch.Tensor],
        ready: Sequence[torch.Event],
        sizes: Mapping[str, int],
        program: int,
    ) -> tuple[torch.Tensor, ...]:
        """Run one batch of a stage, and add it to the trace even if the stage raises."""
        sent: tuple[torch.Tensor, ...] | None = None
        arrived = started = self._clock()
        try:
            received = stage.receive(tensors, ready)
            started = self._clock()
            sent = stage(received, sizes, program)
            return sent
        finally:
            nbytes = None if sent is None else sum(tensor.nbytes for tensor in sent)
            came = self._bytes_by_source(tensors, program)
            self._marks.append(
                _Marks(self._batches, arrived, started, self._clock(), came, nbytes, self._name(program, sizes))
            )
            self._batches += 1

    def _name(self, program: int, sizes: Mapping[str, int]) -> str:
        """The name of what runs; a decoder of one program prefills where texts have more than one new token."""
        if self._decodes and not self._names[program]:
            return "prefill" if sizes.get("seq", 1) > 1 else "decode"
        return self._names[program]

    def skip(self) -> None:
        """Count a batch that failed in an earlier stage."""
        self._batches += 1

    def runs(self) -> Iterator[Run]:
        """All runs so far, in order.  Waits for the device to finish them."""
        for m in self._marks:
            times = m.arrived(), m.started(), m.ended()
            yield Run(self.stage, m.batch, *times, m.received, m.sent, m.program)

    def to_json(self) -> bytes:
        """The runs, for the trace of this stage in another process.  All processes of a host share a clock."""
        marks = ((m, (m.arrived(), m.started(), m.ended())) for m in self._marks)
        return json.dumps([[m.batch, *times, [*m.received.items()], m.sent, m.program] for m, times in marks]).encode()

    def add_json(self, text: bytes) -> None:
        """Add the runs that `to_json` returned in another process."""
        for batch, *times, received, sent, program in json.loads(text):
            a, b, c = (partial(float, time) for time in times)
            self._marks.append(_Marks(batch, a, b, c, dict(received), sent, program))

    def _bytes_by_source(self, tensors: Sequence[torch.Tensor], program: int) -> dict[int | None, int]:
        count: dict[int | None, int] = {}
        for source, tensor in zip(self._sources[program], tensors, strict=True):
            count[source] = count.get(source, 0) + tensor.nbytes
        return count


class Trace:
    """The traces of all stages."""

    def __init__(self, manifest: Manifest, devices: Sequence[torch.device]) -> None:
        self.model = manifest.name
        decodes = manifest.generation.page > 0
        self.stages = tuple(StageTrace(i, device, manifest.programs, decodes) for i, device in enumerate(devices))

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs by stage, then by batch.  Complete once the trace has ended."""
        return in_order([run for stage in self.stages for run in stage.runs()])


def in_order(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs with times since the first arrival, none of them before the times that it depends on.

    A device begins a transfer when it is free, and may then wait for the source: that wait is not part of the
    transfer.  The clocks of two devices may disagree by the time of a kernel launch.
    """
    zero = min((run.arrived for run in runs), default=0.0)
    ends: dict[tuple[int | None, int], float] = {}
    free: dict[int, float] = {}
    ordered: list[Run] = []
    for run in runs:
        made = [ends.get((source, run.batch), 0.0) for source in run.received]
        arrived = max(run.arrived - zero, free.get(run.stage, 0.0), *made)
        started = max(run.started - zero, arrived)
        ended = max(run.ended - zero, started)
        ends[run.stage, run.batch] = free[run.stage] = ended
        ordered.append(replace(run, arrived=arrived, started=started, ended=ended))
    return tuple(ordered)
