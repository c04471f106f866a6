"""Endpoints of the routes in a process, and the threads that connect them to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Thread
from typing import Protocol, runtime_checkable

import torch

from runtime.engine.boxes import Boxes
from runtime.engine.channel import Channel, Closable
from runtime.engine.message import Control, Failure, Message, Values
from runtime.engine.routes import Route, routes
from runtime.manifest.manifest import Manifest


class Runner(Protocol):
    """The work of a thread."""

    def run(self) -> None: ...


class Endpoint(Protocol):
    """A channel within a process, or an end of a link to another one: see `Channel`."""

    def send(self, item: Message, /) -> None: ...
    def receive(self) -> Message: ...
    def close(self, cause: Exception | None = None) -> None: ...
    def drain(self) -> list[Message]: ...


@runtime_checkable
class Aimed(Protocol):
    """An endpoint that brings the tensors of the next message to a device itself."""

    def aim(self, device: torch.device | None, ahead: bool = False) -> None: ...
    def is_brought_to(self, device: torch.device) -> bool: ...


@dataclass(frozen=True)
class Port:
    """One end of a route."""

    route: Route
    channel: Endpoint

    @cached_property
    def aimed(self) -> Aimed | None:
        """The channel, if it brings tensors to devices itself: to ask a protocol takes longer than to receive."""
        return self.channel if isinstance(self.channel, Aimed) else None


@dataclass(frozen=True)
class Ports:
    """The ports of a process's stages, and those of the caller if it is in this process."""

    outward: Sequence[Port]  # that stages and caller send to
    inward: Sequence[Port]  # that they receive from
    control: Sequence[Channel[Control]] = ()  # that get each message's header before its tensors
    runners: Sequence[Runner] = ()  # each on a thread of its own, until a channel is closed
    alarms: Sequence[Closable] = ()  # closed first at the end
    links: Sequence[Closable] = ()  # closed last
    threads: Sequence[Thread] = ()  # that run already, and end once the alarms are closed
    ahead: bool = True  # whether no link is to another host, where tensors go only once they exist

    def outlets(self, source: int | None) -> tuple[Port, ...]:
        """The ports that stage `source` sends to; None is the caller."""
        return tuple(port for port in self.outward if port.route.source == source)

    def inlets(self, target: int | None) -> tuple[Port, ...]:
        """The ports that stage `target` receives from; None is the caller."""
        return tuple(port for port in self.inward if port.route.target == target)

    def come_ahead_to(self, device: torch.device) -> bool:
        """Whether the caller can take all outputs to a device of this process before they exist."""
        ends = [port.aimed for port in self.inlets(None) if any(of.takes for of in port.route.programs)]
        return self.ahead and all(end is None or end.is_brought_to(device) for end in ends)

    def channels(self) -> tuple[Endpoint, ...]:
        """The channels of all ports, each once."""
        return tuple({id(port.channel): port.channel for port in (*self.outward, *self.inward)}.values())


def in_one_process(manifest: Manifest) -> Ports:
    """The ports of all stages and of the caller.  Raises ManifestError if the stages do not fit together."""
    ports = tuple(Port(route, Channel[Message](route.capacity)) for route in routes(manifest))
    return Ports(ports, ports)


def send_all(ports: Sequence[Port], message: Message) -> None:
    """Send each target its part of a message.  Raises ChannelClosed."""
    for port in ports:
        part = message
        if isinstance(message, Values):
            part = replace(message, tensors=_carried(port.route, message), parts={})
        port.channel.send(part)


def _carried(route: Route, message: Values) -> tuple[torch.Tensor, ...]:
    """The tensors of a message that a route carries: to the caller parts of outputs, where it wants no more."""
    carried = route.programs[message.program]
    parts = message.parts if route.target is None else {}
    pairs = zip(carried.takes, carried.places, strict=True)
    return tuple(parts[place] if place in parts else message.tensors[i] for i, place in pairs)


def receive_all(ports: Sequence[Port], device: torch.device | None = None, ahead: bool = False) -> Message:
    """The next message, with the tensors of all sources in their places; the first failure if there is one.

    Takes one message from every port, whatever it holds, so that all ports stay at the same batch.  `device`: where
    tensors of other processes are best brought to; `ahead`: whether the caller takes them there before they exist.
    Raises ChannelClosed.
    """
    for port in ports:
        if port.aimed is not None:
            port.aimed.aim(device, ahead)
    messages = [port.channel.receive() for port in ports]
    failure = next((message for message in messages if isinstance(message, Failure)), None)
    if failure is not None:
        return failure
    placed: dict[int, torch.Tensor] = {}
    sizes: dict[str, int] = {}
    wanted: dict[int, Boxes] = {}
    ready: list[torch.Event] = []
    program = 0  # the same in all
    for port, message in zip(ports, messages, strict=True):
        if not isinstance(message, Values):
            return message
        program = message.program
        placed.update(zip(port.route.programs[program].places, message.tensors, strict=True))
        sizes.update(message.sizes)
        wanted.update(message.wanted)
        ready.extend(message.ready)
    return Values(tuple(placed[i] for i in range(len(placed))), sizes, tuple(ready), program, wanted)
