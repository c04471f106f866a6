"""A session: the ports of one process, from its first batch to a fault or the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from runtime.engine.channel import Channel
from runtime.engine.message import Message
from runtime.engine.ports import Port, Ports
from runtime.engine.routes import Route, routes
from runtime.manifest.manifest import Manifest
from runtime.processes.links.inlet import Inlet
from runtime.processes.links.link import LinkEnds, Tracing
from runtime.processes.links.outlet import Carrier, Outlet
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
    tracing = Tracing(lambda: Trace(places.manifest, places.devices))
    all_routes = enumerate(routes(places.manifest))
    of_each = [host_ports(places, here, route, ends.get(number), alarm, tracing) for number, route in all_routes]
    return Ports(
        [port for ports in of_each for port in ports.outward],
        [port for ports in of_each for port in ports.inward],
        runners=[runner for ports in of_each for runner in ports.runners],
        alarms=[alarm],
    )


def host_ports(
    places: Places, here: int, route: Route, end: MessageSocket | None, alarm: Channel[None], tracing: Tracing
) -> Ports:
    """The ports of one route in process `here`.  `end`: of its link to another process of the host."""
    source, target = places.process_of(route.source), places.process_of(route.target)
    if source == target == here:
        port = Port(route, Channel[Message](route.capacity))
        return Ports([port], [port])
    if end is None:  # a route between others
        return Ports([], [])
    if target == here:
        return Ports([], [Port(route, Inlet(end, places.ends(route), alarm, tracing))])
    outlet = Outlet(end, places.ends(route), alarm, tracing, places.slots(route))
    if route.source is not None:
        return Ports([Port(route, outlet)], [])
    carrier = Carrier(outlet)
    return Ports([Port(route, carrier)], [], runners=[carrier])
