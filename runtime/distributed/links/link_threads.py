"""The threads that carry messages between the channels of this process and the links to its peers.

All follow the control messages: receives are posted as soon as a batch is announced, before its tensors are
computed, and messages without tensors (Reset, say) are sent once to a process, not on every route.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import torch

from runtime.device.streams import wait_for, within
from runtime.distributed.control import ControlCodec
from runtime.distributed.links.transport import Pending, TensorLink
from runtime.distributed.links.wire_format import OutOfStep, PostedReceive, RouteCodec
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Control, Failure, Message, SetTrace, Values
from runtime.errors import StageError
from runtime.trace.traces import Trace

AHEAD = 2  # batches for which receives are posted, or whose sends are not awaited yet
DIAGNOSIS_TIME = 1.0  # seconds for the monitor to find out why a link broke


@dataclass(frozen=True)
class RemoteStage:
    """The other end of a link, as errors name it."""

    stage: int  # the first one that the process runs
    device: str
    process: str


@dataclass(frozen=True)
class LinkThread(ABC):
    """A thread at one end of a link.  It runs until a channel is closed or the link breaks."""

    alarm: Channel[None]  # closed at a fault of any process
    remote: RemoteStage

    def run(self) -> None:
        """Carry messages.  If the link breaks and the monitor gives no cause, the alarm is closed with a StageError."""
        try:
            with torch.no_grad(), within(self.stream):
                self.carry()
        except ChannelClosed:
            return
        except (ConnectionError, OutOfStep) as e:
            if not self.alarm.wait_closed(DIAGNOSIS_TIME):
                lost = ConnectionError(f"the connection to {self.remote.process} broke: {e}")
                self.alarm.close(StageError(self.remote.stage, self.remote.device, lost))

    @property
    def stream(self) -> torch.Stream | None:
        """The stream in which tensors on an accelerator are sent and received."""
        return None

    @abstractmethod
    def carry(self) -> None:
        """Carry messages forever.  Raises ChannelClosed, ConnectionError or OutOfStep."""


@dataclass(frozen=True)
class Sender(LinkThread):
    """Sends the messages of a channel, which a stage of this process, or the caller, fills."""

    control: Channel[Control]
    channel: Channel[Message]
    codec: RouteCodec
    traced: int | None = None  # the stage whose trace is sent on this link when it ends

    @property
    def stream(self) -> torch.Stream | None:
        return self.codec.stream

    def carry(self) -> None:
        sent: deque[list[Pending]] = deque()
        trace: Trace | None = None
        for number in count():
            control, message = self.control.receive(), self.channel.receive()
            match control, message:
                case Values(), Values() | Failure():
                    if isinstance(message, Values) and not self.codec.ahead:
                        wait_for(message.ready, self.alarm.require_open)
                    sent.append(self.codec.send(number, message, control))
                case SetTrace(started), _ if self.traced is not None:
                    if started is None and trace is not None:
                        sent.append([self.codec.send_text(trace.stages[self.traced].to_json())])
                    trace = started
            while len(sent) > AHEAD:
                for pending in sent.popleft():
                    pending.wait()


@dataclass(frozen=True)
class Receiver(LinkThread):
    """Receives messages into a channel, which a stage of this process, or the caller, reads."""

    control: Channel[Control]
    channel: Channel[Message]
    codec: RouteCodec
    traced: int | None = None  # the stage whose trace arrives on this link when it ends

    @property
    def stream(self) -> torch.Stream | None:
        return self.codec.stream

    def carry(self) -> None:
        numbers, announced = count(), deque[Control]()
        posted: deque[tuple[Control, PostedReceive | None]] = deque()
        trace: Trace | None = None
        while True:
            announced.extend(self.control.drain())
            if not announced and not posted:
                announced.append(self.control.receive())
            while announced and len(posted) < AHEAD:
                posted.append(self._post(next(numbers), announced.popleft()))
            control, receive = posted.popleft()
            if isinstance(control, SetTrace) and self.traced is not None:
                if control.trace is None and trace is not None:
                    trace.stages[self.traced].add_json(self.codec.receive_text())
                trace = control.trace
            self.channel.send(self._complete(control, receive))

    def _post(self, number: int, control: Control) -> tuple[Control, PostedReceive | None]:
        return control, self.codec.post(number, control) if isinstance(control, Values) else None

    def _complete(self, control: Control, posted: PostedReceive | None) -> Message:
        if posted is None or not isinstance(control, Values):
            return control
        return self.codec.complete(posted)


@dataclass(frozen=True)
class ControlSender(LinkThread):
    """Sends the control messages from rank 0 to another rank."""

    codec: ControlCodec
    link: TensorLink
    control: Channel[Control] = field(default_factory=Channel)

    def carry(self) -> None:
        sent: deque[Pending] = deque()
        while True:
            sent.append(self.link.send(self.codec.encode(self.control.receive())))
            if len(sent) > AHEAD:
                sent.popleft().wait()


@dataclass(frozen=True)
class ControlReceiver(LinkThread):
    """Receives the control messages from rank 0, for all senders and receivers of this process."""

    codec: ControlCodec
    link: TensorLink
    followers: Sequence[Channel[Control]]

    def carry(self) -> None:
        while True:
            (vector,) = self.link.receive([self.codec.blank()]).wait()
            second = self.codec.second(vector)
            control = self.codec.decode(vector, *(self.link.receive(second).wait() if second else ()))
            for channel in self.followers:
                channel.send(control)
