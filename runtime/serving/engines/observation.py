"""Observation of the stages of a pipeline that runs: how busy each is, what waits before it, its memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime.pipeline import Pipeline
from runtime.trace.traces import Run

SHORTEST, LONGEST = 1.0, 5.0  # seconds of a window


@dataclass(frozen=True)
class StageLoad:
    """The load of a stage during a window."""

    busy: float  # share of the window
    waiting: float  # batches that waited before it, on average
    batches: int  # that it ran


class Observer:
    """A pipeline that is traced in short windows, as long as somebody asks."""

    def __init__(self, pipe: Pipeline, in_flight: Callable[[], int]) -> None:
        """`in_flight`: the number of batches that the pipeline has."""
        self._pipe = pipe
        self._in_flight = in_flight
        self._window = SHORTEST

    def observe(self) -> list[dict[str, Any]]:
        """The facts about each stage.  Takes a window, longer where batches take long.

        Raises StageError or PipelineClosed where the pipeline cannot go on.
        """
        began, before = time.monotonic(), self._in_flight()
        with self._pipe.trace() as trace:
            time.sleep(self._window)
            seconds, in_flight = time.monotonic() - began, (before + self._in_flight()) / 2
        runs = trace.runs
        self._window = min(LONGEST, max(SHORTEST, 3 * max((run.ended - run.started for run in runs), default=0.0)))
        loads = stage_loads(runs, len(self._pipe.devices), seconds, in_flight)
        memory = [*_memory(self._pipe)]
        return [
            {"device": str(device), "busy": load.busy, "waiting": load.waiting, "batches": load.batches, "memory": held}
            for device, load, held in zip(self._pipe.devices, loads, memory, strict=True)
        ]


def stage_loads(runs: Sequence[Run], stages: int, seconds: float, in_flight: float) -> list[StageLoad]:
    """The load of each stage in a window of so many `seconds`, from its trace.

    By Little's law, the mean number that waits is the sum of their waits by the window's length.  The trace does not
    have when a batch reached the first stage: there waits what is left of the `in_flight`.
    """
    ends = {(run.stage, run.batch): run.ended for run in runs}
    busy, waiting, batches = [0.0] * stages, [0.0] * stages, [0] * stages
    for run in runs:
        busy[run.stage] += run.ended - run.started
        batches[run.stage] += 1
        made = [
            ends[source, run.batch] for source in run.received if source is not None and (source, run.batch) in ends
        ]
        waiting[run.stage] += max(0.0, run.arrived - max(made)) if made else 0.0
    shares, means = [t / seconds for t in busy], [t / seconds for t in waiting]
    means[0] += max(0.0, in_flight - sum(shares) - sum(means))
    return [StageLoad(min(1.0, share), mean, n) for share, mean, n in zip(shares, means, batches, strict=True)]


def _memory(pipe: Pipeline) -> Iterator[int]:
    """Bytes that each stage's device, or the process that runs it, holds now."""
    process_of = {stage: pid for pid, stages in pipe.pids.items() for stage in stages}
    for stage, device in enumerate(pipe.devices):
        if device.type != "cpu" and stage not in process_of:
            yield torch.accelerator.memory_allocated(device)
        else:
            yield _resident(process_of.get(stage, os.getpid()))


def _resident(pid: int) -> int:
    """Bytes of a process that lie in memory; 0 where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
