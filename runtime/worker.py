"""The thread of one stage: receive, run, send, batch after batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runtime.channel import ChannelClosed
from runtime.errors import StageError
from runtime.message import Failure, Message, Port, Reset, Values, receive_all, send_all
from runtime.stage import LoadedStage


@dataclass(frozen=True)
class Worker:
    """A stage between its ports."""

    stage: LoadedStage
    inlets: tuple[Port, ...]
    outlets: tuple[Port, ...]

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
        try:
            match message:
                case Values(tensors, sizes):
                    return Values(self.stage(tensors, sizes))
                case Reset():
                    self.stage.reset()
            return message
        except BaseException as e:  # a thread that ends would leave the caller waiting
            return Failure(StageError(self.stage.index, str(self.stage.device), e))
