"""The thread of one stage: receive, run, send, batch after batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runtime.device.streams import made_by_now, within
from runtime.engine.channel import ChannelClosed
from runtime.engine.message import Failure, Message, Port, Reset, Values, Watch, receive_all, send_all
from runtime.errors import StageError
from runtime.stage.stage import LoadedStage
from runtime.trace.recording import Trace, Track


@dataclass
class Under:
    """A batch that a stage has begun, on the host or on its device."""

    number: int
    received: Sequence[torch.Event]
    made: Sequence[torch.Event] | None = None  # None while the host runs it

    @property
    def done(self) -> bool:
        return self.made is not None and all(event.query() for event in self.made)


class Worker:
    """A stage between its ports."""

    def __init__(self, stage: LoadedStage, inlets: Sequence[Port], outlets: Sequence[Port]) -> None:
        self.stage = stage
        self.inlets = inlets
        self.outlets = outlets
        self._begun: deque[Under] = deque()
        self._count = 0
        self._track: Track | None = None  # while a trace is on

    def run(self) -> None:
        """Until a channel is closed.  Gradients and the current stream are set for this thread alone."""
        with torch.no_grad(), within(self.stage.stream):
            try:
                while True:
                    # Nested, so that no name holds tensors of this batch while the next is awaited.
                    send_all(self.outlets, self._answer(receive_all(self.inlets)))
            except ChannelClosed:
                return

    @property
    def busy_with(self) -> int | None:
        """The number of the batch that the stage runs, if all that it receives is there.  Any thread may ask."""
        for under in [*self._begun]:
            if not under.done:
                return under.number if all(event.query() for event in under.received) else None
        return None

    def _answer(self, message: Message) -> Message:
        under = self._begin(message.ready if isinstance(message, Values) else ())
        try:
            match message:
                case Values():
                    tensors = self._run(message)
                    under.made = made_by_now(tensors)
                    return Values(tensors, ready=under.made)
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
            under.made = under.made or ()

    def _begin(self, received: Sequence[torch.Event]) -> Under:
        while self._begun and self._begun[0].done:
            self._begun.popleft()
        self._count += 1
        self._begun.append(Under(self._count, received))
        return self._begun[-1]

    def _run(self, batch: Values) -> tuple[torch.Tensor, ...]:
        if self._track is not None:
            return self._track.run(self.stage, batch.tensors, batch.ready, batch.sizes)
        return self.stage(self.stage.receive(batch.tensors, batch.ready), batch.sizes)

    def _watch(self, trace: Trace | None) -> None:
        self._track = None
        if trace is not None:
            self._track = trace.tracks[self.stage.index]
            self._track.begin()
