"""The thread of one stage: receive, run, send, batch after batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from runtime.channel import ChannelClosed
from runtime.errors import StageError
from runtime.message import Failure, Message, Port, Reset, Values, Watch, receive_all, send_all
from runtime.stage import LoadedStage
from runtime.tracks import Trace, Track


class Worker:
    """A stage between its ports."""

    def __init__(self, stage: LoadedStage, inlets: Sequence[Port], outlets: Sequence[Port]) -> None:
        self.stage = stage
        self.inlets = inlets
        self.outlets = outlets
        self.busy_since: float | None = None  # while a batch is run; by time.monotonic
        self._track: Track | None = None  # while a trace is on

    def run(self) -> None:
        """Until a channel is closed.  Gradients and the current device are set for this thread alone."""
        with torch.no_grad(), torch.accelerator.device_index(self.stage.device.index):
            try:
                while True:
                    # Nested, so that no name holds tensors of this batch while the next is awaited.
                    send_all(self.outlets, self._answer(receive_all(self.inlets)))
            except ChannelClosed:
                return

    def _answer(self, message: Message) -> Message:
        self.busy_since = time.monotonic()
        try:
            match message:
                case Values(tensors, sizes):
                    return Values(self._run(tensors, sizes))
                case Failure() if self._track is not None:
                    self._track.skip()
                case Reset():
                    self.stage.reset()
                case Watch(trace):
                    self._watch(trace)
            return message
        except BaseException as e:  # a thread that ends would leave the caller waiting
            return Failure(StageError(self.stage.index, str(self.stage.device), e))
        finally:
            self.busy_since = None

    def _run(self, tensors: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
        if self._track is not None:
            return self._track.run(self.stage, tensors, sizes)
        return self.stage(self.stage.receive(tensors), sizes)

    def _watch(self, trace: Trace | None) -> None:
        self._track = None
        if trace is not None:
            self._track = trace.tracks[self.stage.index]
            self._track.begin()
