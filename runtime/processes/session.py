"""A session: the ports of one process, from its first batch to a fault or the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from runtime.engine.channel import Channel
from runtime.engine.message import Message
from runtime.engine.ports import Port, Ports, Runner
from runtime.engine.routes import Route, routes
from runtime.manifest.manifest import Manifest
from runtime.processes.links import Carrier, Inlet, LinkEnds, Outlet, Tracing
from runtime.processes.message_socket import MessageSocket
from runtime.trace.traces import Trace

CALLER = 0  # the number of the process that makes the calls


@dataclass(frozen=True)
class Places:
    """The process and the device of each stage."""

    manifest: Manifest
    processes: tuple[int, ...]
    devices: tuple[torch.device, ...]

    def process_of(self, stage: int | None) -> int:
        """The number of a stage's process, or of the caller's."""
        return CALLER if stage is None else self.processes[stage]

    def links(self) -> dict[int, tuple[int, int]]:
        """The two processes of each route that connects two, by the number of the route."""
        both = ((self.process_of(r.source), self.process_of(r.target)) for r in routes(self.manifest))
        return {number: ends for number, ends in enumerate(both) if ends[0] != ends[1]}

    def ends(self, route: Route) -> LinkEnds:
        """The stages and devices of a route."""
        target = None if route.target is None else self.devices[route.target]
        source = self.devices[route.target or 0] if route.source is None else self.devices[route.source]
        return LinkEnds(route.source, route.target, source, target)

    def slots(self, route: Route) -> int:
        """The batches that may be on a route: as many as its target can be behind, and one more."""
        if route.source is None:
            return 2  # the caller's channel holds the others
        return (len(self.devices) if route.target is None else route.target) - route.source + 1


def session_ports(places: Places, here: int, ends: Mapping[int, MessageSocket], alarm: Channel[None]) -> Ports:
    """The ports of process `here`.  `ends`: of its links, by the number of the route; `alarm` is closed first."""
    outward: list[Port] = []
    inward: list[Port] = []
    runners: list[Runner] = []
    links: list[Outlet] = []
    tracing = Tracing(lambda: Trace(places.manifest, places.devices))
    for number, route in enumerate(routes(places.manifest)):
        source, target = places.process_of(route.source), places.process_of(route.target)
        if source == target == here:
            port = Port(route, Channel[Message](route.capacity))
            outward.append(port)
            inward.append(port)
        elif source == here:
            outlet = Outlet(ends[number], places.ends(route), alarm, tracing, places.slots(route))
            if route.source is None:
                channel = Channel[Message]()
                outward.append(Port(route, channel))
                runners.append(Carrier(channel, outlet))
                links.append(outlet)
            else:
                outward.append(Port(route, outlet))
        elif target == here:
            inward.append(Port(route, Inlet(ends[number], places.ends(route), alarm, tracing)))
    return Ports(outward, inward, (), runners, (alarm,), links)
