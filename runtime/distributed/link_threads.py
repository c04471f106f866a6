"""The threads that carry messages between the channels of this process and the links to others.

Each follows the orders: so receives are posted as soon as a batch is announced, before any of its
tensors is made, and what has no tensors (Reset, Watch) is sent once to a process, not on every route.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import torch

from runtime.device.streams import wait_for, within
from runtime.distributed.control import Order, Orders
from runtime.distributed.transport import Link, Pending
from runtime.distributed.wire_format import Arriving, OutOfStep, Packing
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, Message, Values, Watch
from runtime.errors import StageError
from runtime.trace.recording import Trace

AHEAD = 2  # batches for which receives are posted, or whose sends are not awaited
PATIENCE = 1.0  # seconds for the monitor to find out why a link broke


@dataclass(frozen=True)
class Peer:
    """The process at the other end, as errors name it."""

    stage: int  # one that it runs
    device: str
    name: str


@dataclass(frozen=True)
class Pump(ABC):
    """Runs until a channel is closed, or the link breaks."""

    alarm: Channel[None]  # closed once something goes wrong in any process
    peer: Peer

    def run(self) -> None:
        try:
            with torch.no_grad(), within(self.stream):
                self.pump()
        except ChannelClosed:
            return
        except (ConnectionError, OutOfStep) as e:
            if not self.alarm.wait_closed(PATIENCE):
                lost = ConnectionError(f"the connection to {self.peer.name} broke: {e}")
                self.alarm.close(StageError(self.peer.stage, self.peer.device, lost))

    @property
    def stream(self) -> torch.Stream | None:
        """In which tensors on a GPU are sent and received."""
        return None

    @abstractmethod
    def pump(self) -> None:
        """Raises ChannelClosed, ConnectionError or OutOfStep."""


@dataclass(frozen=True)
class Sender(Pump):
    """Sends the messages that a stage of this process, or the caller, leaves in a channel."""

    orders: Channel[Order]
    channel: Channel[Message]
    packing: Packing
    recorded: int | None = None  # the stage whose trace goes this way when it ends

    @property
    def stream(self) -> torch.Stream | None:
        return self.packing.stream

    def pump(self) -> None:
        sent: deque[list[Pending]] = deque()
        trace: Trace | None = None
        for number in count():
            order, message = self.orders.receive(), self.channel.receive()
            match order, message:
                case Values(), Values() | Failure():
                    if isinstance(message, Values) and not self.packing.ahead:
                        wait_for(message.ready, self.alarm.require_open)
                    sent.append(self.packing.send(number, message, order.sizes))
                case Watch(begun), _ if self.recorded is not None:
                    if begun is None and trace is not None:
                        sent.append([self.packing.send_text(trace.tracks[self.recorded].to_json())])
                    trace = begun
            while len(sent) > AHEAD:
                for pending in sent.popleft():
                    pending.wait()


@dataclass(frozen=True)
class Receiver(Pump):
    """Puts what another process sends into the channel of a stage of this process, or of the caller."""

    orders: Channel[Order]
    channel: Channel[Message]
    packing: Packing
    recorded: int | None = None  # the stage whose trace comes this way when it ends

    @property
    def stream(self) -> torch.Stream | None:
        return self.packing.stream

    def pump(self) -> None:
        numbers, known = count(), deque[Order]()
        posted: deque[tuple[Order, Arriving | None]] = deque()
        trace: Trace | None = None
        while True:
            known.extend(self.orders.drain())
            if not known and not posted:
                known.append(self.orders.receive())
            while known and len(posted) < AHEAD:
                posted.append(self._post(next(numbers), known.popleft()))
            order, arriving = posted.popleft()
            if isinstance(order, Watch) and self.recorded is not None:
                if order.trace is None and trace is not None:
                    trace.tracks[self.recorded].add_json(self.packing.receive_text())
                trace = order.trace
            self.channel.send(self._arrived(order, arriving))

    def _post(self, number: int, order: Order) -> tuple[Order, Arriving | None]:
        return order, self.packing.post(number, order.sizes) if isinstance(order, Values) else None

    def _arrived(self, order: Order, arriving: Arriving | None) -> Message:
        if arriving is None or not isinstance(order, Values):
            return order
        message = self.packing.unpack(arriving)
        return replace(message, sizes=order.sizes) if isinstance(message, Values) else message


@dataclass(frozen=True)
class Announcer(Pump):
    """On rank 0: tells another rank the orders."""

    wording: Orders
    link: Link
    orders: Channel[Order] = field(default_factory=Channel)

    def pump(self) -> None:
        sent: deque[Pending] = deque()
        while True:
            sent.append(self.link.send([self.wording.encode(self.orders.receive())]))
            if len(sent) > AHEAD:
                sent.popleft().wait()


@dataclass(frozen=True)
class Listener(Pump):
    """On the other ranks: tells the senders and receivers of this process what rank 0 announces."""

    wording: Orders
    link: Link
    followers: Sequence[Channel[Order]]

    def pump(self) -> None:
        while True:
            (vector,) = self.link.receive([self.wording.blank()]).wait()
            order = self.wording.decode(vector)
            for channel in self.followers:
                channel.send(order)
