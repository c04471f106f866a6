"""Which ends of the routes lie in a process, and what carries messages between it and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Protocol

from runtime.engine.channel import Channel, Closable
from runtime.engine.message import Message, Port, Reset, Values, Watch
from runtime.engine.routes import routes
from runtime.manifest import Manifest


class Runner(Protocol):
    def run(self) -> None: ...


@dataclass(frozen=True)
class Ports:
    """The ports of the stages of a process, and of the caller where it is here."""

    outward: Sequence[Port]  # into which they send
    inward: Sequence[Port]  # from which they receive
    orders: Sequence[Channel[Values | Reset | Watch]] = ()  # told of each message of the caller, ahead of it
    runners: Sequence[Runner] = ()  # each runs on a thread until what it waits for is closed
    alarms: Sequence[Closable] = ()  # closed first, when all ends
    links: Sequence[Closable] = ()  # closed last
    threads: Sequence[Thread] = ()  # that run already, and end when the alarms are closed

    def outlets(self, source: int | None) -> tuple[Port, ...]:
        """Those of a stage, or of the caller."""
        return tuple(port for port in self.outward if port.route.source == source)

    def inlets(self, target: int | None) -> tuple[Port, ...]:
        return tuple(port for port in self.inward if port.route.target == target)

    def channels(self) -> tuple[Channel[Message], ...]:
        return tuple({id(port.channel): port.channel for port in (*self.outward, *self.inward)}.values())


def in_one_process(manifest: Manifest) -> Ports:
    """Raises ManifestError where the stages do not fit together."""
    ports = tuple(Port(route, Channel[Message](route.capacity)) for route in routes(manifest))
    return Ports(ports, ports)
