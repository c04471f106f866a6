"""The thread that takes the outputs from the stages and completes the caller's futures, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.channel import Channel, ChannelClosed
from runtime.devices import move
from runtime.errors import PipelineClosed
from runtime.inputs import Bound
from runtime.message import Failure, Message, Port, receive_all

Finish = Callable[[Sequence[torch.Tensor], Mapping[str, int]], Any]


@dataclass(frozen=True)
class Ticket:
    """A batch in flight, as the caller will want it back."""

    sizes: Mapping[str, int]
    device: torch.device | None  # for the outputs; None: where they are made
    finish: Finish  # outputs and sizes -> what the caller gets
    future: Future[Any] = field(default_factory=Future)

    @classmethod
    def of(cls, batch: Bound, finish: Finish) -> Ticket:
        ticket = cls(batch.sizes, batch.device, finish)
        ticket.future.set_running_or_notify_cancel()  # its stages run in any case: it cannot be cancelled
        return ticket

    def complete(self, message: Message) -> None:
        if isinstance(message, Failure):
            self.future.set_exception(message.error)
            return
        try:
            device = self.device
            outputs = message.tensors if device is None else [move(t, device) for t in message.tensors]
            self.future.set_result(self.finish(outputs, self.sizes))
        except BaseException as e:  # from a class of the user's, or from memory running out
            self.future.set_exception(e)

    def abandon(self) -> None:
        self.future.set_exception(PipelineClosed("the pipeline was closed before this batch was done"))


@dataclass(frozen=True)
class Collector:
    """The tickets of the batches in flight, and the ports where the stages leave their outputs."""

    tickets: Channel[Ticket]
    inlets: tuple[Port, ...]

    def run(self) -> None:
        """Until a channel is closed; what is in flight then fails with PipelineClosed."""
        try:
            while True:
                self._complete(self.tickets.receive())
        except ChannelClosed:
            for ticket in self.tickets.drain():
                ticket.abandon()

    def _complete(self, ticket: Ticket) -> None:
        try:
            ticket.complete(receive_all(self.inlets))
        except ChannelClosed:
            ticket.abandon()
            raise
