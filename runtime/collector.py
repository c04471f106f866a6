"""The thread that takes the outputs from the stages and completes the caller's futures, in order."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.channel import Channel, ChannelClosed
from runtime.errors import PipelineClosed
from runtime.message import Failure, Message, Port, Reset, Values, Watch, receive_all

Finish = Callable[[tuple[torch.Tensor, ...]], Any]  # the model's outputs -> what the caller gets


@dataclass(frozen=True)
class Ticket:
    """A message in flight, and the caller who waits for what becomes of it."""

    finish: Finish
    future: Future[Any] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # the stages run it in any case: it cannot be cancelled

    def complete(self, message: Message) -> None:
        try:
            match message:
                case Failure(error):
                    self.future.set_exception(error)
                case Values(outputs):
                    self.future.set_result(self.finish(outputs))
                case Reset() | Watch():
                    self.future.set_result(None)
        except BaseException as e:  # from a class of the user's, or from memory running out
            self.future.set_exception(e)

    def abandon(self, cause: BaseException | None) -> None:
        self.future.set_exception(cause or PipelineClosed("the pipeline was closed before this batch was done"))


@dataclass(frozen=True)
class Collector:
    """The tickets of what is in flight, and the ports where the stages leave their outputs."""

    tickets: Channel[Ticket]
    inlets: tuple[Port, ...]

    def run(self) -> None:
        """Until a channel is closed; what is in flight then fails with the cause, or with PipelineClosed."""
        try:
            while True:
                self._complete(self.tickets.receive())
        except ChannelClosed as e:
            for ticket in self.tickets.drain():
                ticket.abandon(e.__cause__)

    def _complete(self, ticket: Ticket) -> None:
        try:
            ticket.complete(receive_all(self.inlets))
        except ChannelClosed as e:
            ticket.abandon(e.__cause__)
            raise
