"""The thread that takes the outputs from the stages and completes the caller's futures, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.device.copies import Dock
from runtime.device.streams import wait_for
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, Message, Port, Reset, Values, Watch, receive_all
from runtime.errors import PipelineClosed

Finish = Callable[[tuple[torch.Tensor, ...]], Any]  # the model's outputs -> what the caller gets


@dataclass(frozen=True)
class Ticket:
    """A message in flight, and the caller who waits for what becomes of it."""

    finish: Finish
    home: torch.device | None = None  # where the outputs are wanted; None: where they are made
    streams: tuple[torch.Stream, ...] = ()  # that the caller uses, on all accelerators where outputs may be
    future: Future[Any] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # the stages run it in any case: it cannot be cancelled

    def complete(self, outputs: tuple[torch.Tensor, ...]) -> None:
        """FINISH works in the caller's streams, as what it makes is the caller's."""
        with ExitStack() as stack:
            for stream in self.streams:
                stack.enter_context(stream)
                for tensor in outputs:
                    if tensor.device == stream.device:
                        tensor.record_stream(stream)
            self.future.set_result(self.finish(outputs))

    def abandon(self, cause: BaseException | None) -> None:
        self.future.set_exception(cause or PipelineClosed("the pipeline was closed before this batch was done"))


@dataclass(frozen=True)
class Collector:
    """The tickets of what is in flight, and the ports where the stages leave their outputs."""

    tickets: Channel[Ticket]
    inlets: tuple[Port, ...]
    docks: dict[torch.device, Dock] = field(default_factory=dict)  # of the devices where callers want outputs

    def run(self) -> None:
        """Until a channel is closed; what is in flight then fails with the cause, or with PipelineClosed."""
        try:
            with torch.no_grad():
                while True:
                    self._complete(self.tickets.receive())
        except ChannelClosed as e:
            for ticket in self.tickets.drain():
                ticket.abandon(e.__cause__)

    def _complete(self, ticket: Ticket) -> None:
        try:
            self._answer(ticket, receive_all(self.inlets))
        except ChannelClosed as e:
            ticket.abandon(e.__cause__)
            raise
        except BaseException as e:  # from a class of the user's, or from memory running out
            ticket.future.set_exception(e)

    def _answer(self, ticket: Ticket, message: Message) -> None:
        match message:
            case Failure(error):
                ticket.future.set_exception(error)
            case Values():
                ticket.complete(self._bring(message, ticket.home))
            case Reset() | Watch():
                ticket.future.set_result(None)

    def _bring(self, outputs: Values, home: torch.device | None) -> tuple[torch.Tensor, ...]:
        """The outputs where they are wanted, when the devices have made them.  Raises ChannelClosed.

        Only this thread waits for devices, so that batches in flight are those that are not done.
        """
        self._wait(outputs.ready)
        if home is None:
            return outputs.tensors
        tensors, ready = self.docks.setdefault(home, Dock(home)).take(outputs.tensors, outputs.ready)
        self._wait(ready)
        return tensors

    def _wait(self, events: Sequence[torch.Event]) -> None:
        wait_for(events, self.tickets.require_open)
        if events:  # a job that ends early lets go of what waits for other processes, with nothing to show for it
            self.tickets.require_open()
