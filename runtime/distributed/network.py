"""The routes between the processes of a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from runtime.call.input_type import InputType
from runtime.device.copies import Dock
from runtime.device.streams import stream_on
from runtime.distributed.control import Order, Orders
from runtime.distributed.link_threads import Announcer, Listener, Peer, Receiver, Sender
from runtime.distributed.monitor import Monitor
from runtime.distributed.rendezvous import Meeting
from runtime.distributed.transport import Wire
from runtime.distributed.wire_format import Packing
from runtime.engine.channel import Channel
from runtime.engine.message import Message, Port
from runtime.engine.ports import Ports, Runner
from runtime.engine.routes import Route, routes
from runtime.manifest import Manifest
from runtime.trace.recording import Trace


def connect(manifest: Manifest, meeting: Meeting, ranks: Sequence[int], monitor: Monitor, timeout: float) -> Ports:
    """The ports of this process, when all call this.  RANKS: of each stage.

    Raises ManifestError where the stages do not fit together, DistributedError where processes do not connect.
    """
    wire = Wire(meeting.store, meeting.rank, len(meeting.members), timeout)
    network = _Network(manifest, meeting, ranks, monitor, wire)
    for tag, route in enumerate(routes(manifest)):
        network.add(route, tag)
    network.add_orders(2 * len(routes(manifest)))
    # The monitor's comes first: who finds a link broken looks whether that is meant.
    alarms = (monitor.alarm, *network.followers, *network.orders)
    return Ports(network.outward, network.inward, network.orders, network.runners, alarms, (wire,), (monitor.thread,))


@dataclass(frozen=True)
class _Network:
    """The ports of this process as they are added."""

    manifest: Manifest
    meeting: Meeting
    ranks: Sequence[int]
    monitor: Monitor
    wire: Wire
    outward: list[Port] = field(default_factory=list)
    inward: list[Port] = field(default_factory=list)
    followers: list[Channel[Order]] = field(default_factory=list)
    orders: list[Channel[Order]] = field(default_factory=list)
    runners: list[Runner] = field(default_factory=list)

    def add(self, route: Route, tag: int) -> None:
        source, target, here = self._rank(route.source), self._rank(route.target), self.meeting.rank
        recorded = route.source if route.target is None else None
        if source == target == here:
            port = Port(route, Channel[Message](route.capacity))
            self.outward.append(port)
            self.inward.append(port)
        elif source == here:
            # The other end has the route's capacity; a batch here keeps the stage from waiting for the link.
            channel, orders = Channel[Message](route.capacity and 1), Channel[Order]()
            self.outward.append(Port(route, channel))
            self.followers.append(orders)
            packing = self._packing(route, tag)
            self.runners.append(Sender(self.monitor.alarm, self._peer(target), orders, channel, packing, recorded))
        elif target == here:
            channel, orders = Channel[Message](route.capacity), Channel[Order]()
            self.inward.append(Port(route, channel))
            self.followers.append(orders)
            packing = self._packing(route, tag)
            self.runners.append(Receiver(self.monitor.alarm, self._peer(source), orders, channel, packing, recorded))

    def add_orders(self, tag: int) -> None:
        """When all routes are there."""
        wording = Orders(tuple(self.manifest.symbols), self._new_trace)
        if self.meeting.rank != 0:
            link = self.wire.host_link(0, tag)
            self.runners.append(Listener(self.monitor.alarm, self._peer(0), wording, link, tuple(self.followers)))
            return
        self.orders.extend(self.followers)
        for rank in range(1, len(self.meeting.members)):
            announcer = Announcer(self.monitor.alarm, self._peer(rank), wording, self.wire.host_link(rank, tag))
            self.orders.append(announcer.orders)
            self.runners.append(announcer)

    def _rank(self, stage: int | None) -> int:
        return 0 if stage is None else self.ranks[stage]

    def _peer(self, rank: int) -> Peer:
        member = self.meeting.members[rank]
        return Peer(self.ranks.index(rank), member.device, str(member))

    def _packing(self, route: Route, tag: int) -> Packing:
        source, target = self._rank(route.source), self._rank(route.target)
        peer = target if source == self.meeting.rank else source
        headers, texts = (self.wire.host_link(peer, 2 * tag + i) for i in range(2))
        tensors, device, ahead = headers, torch.device("cpu"), True
        if route.takes and self._is_on_gpu(source) and self._is_on_gpu(target):
            device = torch.device(self.meeting.members[self.meeting.rank].device)
            tensors, ahead = self.wire.device_link(target, tag, device), False
        types = tuple(self._types(route))
        return Packing(route.source, types, headers, tensors, texts, Dock(device), stream_on(device), ahead)

    def _types(self, route: Route) -> Iterator[InputType]:
        manifest, source = self.manifest, route.source
        offered = manifest.inputs if source is None else [send.tensor for send in manifest.stages[source].sends]
        for i in route.takes:
            yield InputType.parse(offered[i], manifest.symbols)

    def _is_on_gpu(self, rank: int) -> bool:
        return torch.device(self.meeting.members[rank].device).type == "cuda"

    def _new_trace(self) -> Trace:
        devices = [torch.device(self.meeting.members[rank].device) for rank in self.ranks]
        return Trace(self.manifest, devices)
