"""The outputs of batches on their way to the caller, and the thread that completes futures with them, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch

from runtime.device.copies import DeviceCopies
from runtime.device.streams import wait_for
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, FinishKernels, Message, Reset, SetTrace, Values
from runtime.engine.ports import Port, receive_all
from runtime.errors import PipelineClosed
from runtime.stage.callers import CALLERS

Finish = Callable[[tuple[torch.Tensor, ...]], Any]  # the model's outputs -> the caller's result
Early = Callable[[Values], Any]  # the same for outputs that devices may still compute


class BatchFuture(Future[Any]):
    """The future of a batch."""

    def result(self, timeout: float | None = None) -> Any:
        """As that of `Future`, which it waits for as a caller."""
        try:
            if self.done():
                return super().result()
            with CALLERS.waiting():
                return super().result(timeout)
        finally:
            del self  # the traceback of an error knows this frame, and would keep the error, and its tensors, by it


@dataclass(frozen=True)
class Ticket:
    """A message in flight and the future of its result."""

    finish: Finish
    output_device: torch.device | None = None  # None: outputs stay where they are made
    early: Early | None = None  # in place of `finish`: called as soon as outputs can come to the output device
    streams: tuple[torch.Stream, ...] = ()  # the caller's, on every accelerator where outputs may be
    launched: Values | Failure | None = None  # the outputs, where the caller's thread launched the stages
    future: Future[Any] = field(default_factory=BatchFuture)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # the stages run it in any case: it cannot be cancelled

    def abandon(self, cause: BaseException | None) -> None:
        """Fail the future with the cause, or with PipelineClosed."""
        self.future.set_exception(lost(cause))


def finished(finish: Finish, outputs: tuple[torch.Tensor, ...], streams: Sequence[torch.Stream]) -> Any:
    """`finish(outputs)`, computed in the caller's streams, as the result is the caller's."""
    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(stream)
            for tensor in outputs:
                if tensor.device == stream.device:
                    tensor.record_stream(stream)
        return finish(outputs)


def lost(cause: BaseException | None) -> BaseException:
    """The error of a batch that the pipeline was closed on: the fault that it was closed for, if there was one."""
    return cause or PipelineClosed("the pipeline was closed before this batch was done")


@dataclass(frozen=True)
class Arrivals:
    """Outputs that come to where the caller wants them."""

    require_open: Callable[[], None]  # raises ChannelClosed
    copies: dict[torch.device, DeviceCopies] = field(default_factory=dict)  # to each output device
    copying: RLock = field(default_factory=RLock)  # of one thread at a time, whose handlers of signals may call, too

    def on(self, device: torch.device | None, outputs: Values) -> tuple[torch.Tensor, ...]:
        """The outputs on `device`, once they have been computed and copied.  Raises ChannelClosed.

        Only who asks this waits for devices, so batches count as in flight until they are done.
        """
        if device is None or device.type == "cpu":  # a copy to the host blocks, which nothing could end
            self._wait(outputs.ready)
        if device is None:
            return outputs.tensors
        with self.copying:
            copies = self.copies.setdefault(device, DeviceCopies(device))
            tensors, ready = copies.bring(outputs.tensors, outputs.ready)
        self._wait(ready)
        return tensors

    def _wait(self, events: Sequence[torch.Event]) -> None:
        wait_for(events, self.require_open)
        if events:  # aborting a job completes the events of broken transfers, whose tensors then hold no data
            self.require_open()


@dataclass(frozen=True)
class Collector:
    """The tickets of all messages in flight, and the ports that outputs arrive at."""

    tickets: Channel[Ticket]
    inlets: tuple[Port, ...]
    arrivals: Arrivals

    def run(self) -> None:
        """Until a channel is closed; all that is in flight then fails with the cause, or with PipelineClosed."""
        try:
            with torch.no_grad():
                while True:
                    self._complete(self.tickets.receive())
        except ChannelClosed as e:
            self.abandon(e.__cause__)

    def abandon(self, cause: BaseException | None) -> None:
        """Fail all that is in flight; the tickets must be closed."""
        for ticket in self.tickets.drain():
            with suppress(BaseException):  # of what the caller has the future call: others wait for theirs
                ticket.abandon(cause)

    def _complete(self, ticket: Ticket) -> None:
        try:
            message = ticket.launched or receive_all(self.inlets, ticket.output_device, ticket.early is not None)
            self._answer(ticket, message)
        except ChannelClosed as e:
            ticket.abandon(e.__cause__)
            raise
        except BaseException as e:  # from a class of the user's, or from memory running out
            if ticket.future.done():  # from what the caller has the future call
                raise
            ticket.future.set_exception(e)

    def _answer(self, ticket: Ticket, message: Message) -> None:
        match message:
            case Failure(error):
                ticket.future.set_exception(error)
            case Values() if ticket.early is not None:
                ticket.future.set_result(ticket.early(message))
            case Values():
                outputs = self.arrivals.on(ticket.output_device, message)
                ticket.future.set_result(finished(ticket.finish, outputs, ticket.streams))
            case Reset() | FinishKernels() | SetTrace():
                ticket.future.set_result(None)
