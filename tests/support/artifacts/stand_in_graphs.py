"""Stand-ins for the graphs of a device, on the CPU: a replay runs the stage again on the graph's own buffers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from runtime.device import kinds
from runtime.engine import worker
from runtime.stage import cuda_graphs, speed
from runtime.stage.cuda_graphs import GraphedStage, NotYet, RecordedGraph


@dataclass
class StandInDevice:
    """A device that is behind the host: each replay takes `seconds`, and its results exist only then."""

    seconds: float = 0.0
    computes: bool = True  # whether a replay computes: else its results are those of the recording
    replays: int = 0
    free: float = 0.0  # when it has done all that it was given, on the host's clock

    def launched(self) -> None:
        self.replays += 1
        self.free = max(self.free, time.perf_counter()) + self.seconds

    def events(self, tensors: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """As `made_by_now` returns them."""
        return (StandInEvent(self.free),)


@dataclass(frozen=True)
class StandInEvent:
    at: float

    def query(self) -> bool:
        return time.perf_counter() >= self.at


@dataclass(frozen=True)
class StandInReplay:
    """A stage's module with the buffers of its graph."""

    device: StandInDevice
    call: Callable[..., Any]
    inputs: Sequence[torch.Tensor]
    outputs: Sequence[torch.Tensor]
    sizes: dict[str, int]

    def replay(self) -> None:
        self.device.launched()
        if self.device.computes:
            for output, made in zip(self.outputs, self.call(*self.inputs, **self.sizes), strict=True):
                output.copy_(made)


@contextmanager
def stand_in_graphs(device: StandInDevice) -> Iterator[StandInDevice]:
    """A block in which the CPU has graphs, and is behind the host."""

    def recorded(stage: GraphedStage, tensors: Sequence[torch.Tensor], sizes: dict[str, int]) -> RecordedGraph:
        inputs = cuda_graphs.buffers_for(tensors)
        for i in stage._addresses:  # or the states of texts would move on twice
            inputs[i].zero_()
        if not stage._has_kernels():
            raise NotYet
        with cuda_graphs._kept(stage._state):
            outputs = tuple(output.clone() for output in stage._call(*inputs, **sizes))
        return RecordedGraph(StandInReplay(device, stage._call, inputs, outputs, sizes), inputs, outputs)

    with (
        patch.dict(kinds.DEVICE_KINDS, cpu=replace(kinds.DEVICE_KINDS["cpu"], graph="StandIn")),
        patch.object(speed.GraphMemory, "on", lambda device: device),
        patch.object(speed, "has_room", lambda device: True),
        patch.object(GraphedStage, "_record", recorded),
        patch.object(worker, "made_by_now", device.events),
        patch.object(worker, "made_in", lambda stream: device.events(())),
    ):
        yield device
