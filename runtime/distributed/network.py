"""The routes between the processes of a job: endpoints here, links to the peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from runtime.call.input_type import InputType
from runtime.device.copies import DeviceCopies
from runtime.device.kinds import kind_of
from runtime.device.streams import stream_on
from runtime.distributed.control import Control, ControlCodec
from runtime.distributed.links.host_links import connect_on_host
from runtime.distributed.links.link_threads import ControlReceiver, ControlSender, Receiver, RemoteStage, Sender
from runtime.distributed.links.transport import Transport
from runtime.distributed.links.wire_format import RouteCodec
from runtime.distributed.monitor import Monitor
from runtime.distributed.rendezvous import Rendezvous
from runtime.engine.channel import Channel
from runtime.engine.message import Message
from runtime.engine.ports import Port, Ports, Runner
from runtime.engine.routes import Route, RouteTensors, routes
from runtime.manifest.manifest import Manifest, ProgramEntry
from runtime.processes.links.link import Tracing
from runtime.processes.message_socket import MessageSocket
from runtime.processes.session import Places, host_ports
from runtime.trace.traces import Trace


def connect(manifest: Manifest, job: Rendezvous, ranks: Sequence[int], monitor: Monitor, timeout: float) -> Ports:
    """The ports of this process.  Every process calls this.  `ranks`: that of each stage; `timeout` in seconds.

    Raises ManifestError if the stages do not fit together, DistributedError if processes do not connect in time.
    """
    transport = Transport(job.store, job.rank, len(job.peers), timeout)
    places = Places(manifest, tuple(ranks), tuple(torch.device(job.peers[rank].device) for rank in ranks))
    links = places.links()
    on_host = _on_one_host(job, links)
    between_hosts = frozenset(rank for route, pair in links.items() if route not in on_host for rank in pair)
    ends = connect_on_host(job, on_host, timeout)
    tracing = Tracing(lambda: Trace(manifest, places.devices))
    network = _Network(manifest, job, ranks, monitor, transport, places, ends, tracing, between_hosts)
    for tag, route in enumerate(routes(manifest)):
        network.add(route, tag)
    network.add_control(2 * len(routes(manifest)))
    # The monitor's alarm is closed first: a thread whose link breaks looks there whether that is intended.
    alarms = (monitor.alarm, *network.followers, *network.control)
    threads = (monitor.thread,)
    sides = network.outward, network.inward, network.control, network.runners
    return Ports(*sides, alarms, (transport,), threads, ahead=not between_hosts)


def _on_one_host(job: Rendezvous, links: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """The links between processes that share memory."""
    domains = [peer.domain for peer in job.peers]
    return {route: (a, b) for route, (a, b) in links.items() if domains[a] == domains[b]}


@dataclass(frozen=True)
class _Network:
    """The ports of this process, filled one route at a time."""

    manifest: Manifest
    job: Rendezvous
    ranks: Sequence[int]
    monitor: Monitor
    transport: Transport
    places: Places
    ends: Mapping[int, MessageSocket]  # of links within the host, by the number of the route
    tracing: Tracing
    between_hosts: frozenset[int]  # the ranks that have a link to another host: they follow control messages
    outward: list[Port] = field(default_factory=list)
    inward: list[Port] = field(default_factory=list)
    followers: list[Channel[Control]] = field(default_factory=list)  # of the senders and receivers here
    control: list[Channel[Control]] = field(default_factory=list)  # that the engine of rank 0 fills
    runners: list[Runner] = field(default_factory=list)

    def add(self, route: Route, tag: int) -> None:
        source, target, here = self._rank(route.source), self._rank(route.target), self.job.rank
        traced = route.source if route.target is None else None
        if source == target == here or tag in self.ends:
            self._add_on_host(route, tag)
        elif source == here:
            # The other end has the route's capacity; room for one batch keeps the stage from waiting for the link.
            channel, control = Channel[Message](route.capacity and 1), Channel[Control]()
            self.outward.append(Port(route, channel))
            self.followers.append(control)
            codec = self._codec(route, tag)
            self.runners.append(Sender(self.monitor.alarm, self._remote(target), control, channel, codec, traced))
        elif target == here:
            channel, control = Channel[Message](route.capacity), Channel[Control]()
            self.inward.append(Port(route, channel))
            self.followers.append(control)
            codec = self._codec(route, tag)
            self.runners.append(Receiver(self.monitor.alarm, self._remote(source), control, channel, codec, traced))

    def _add_on_host(self, route: Route, tag: int) -> None:
        """Add a route within this process, or to another one of its host."""
        added = host_ports(self.places, self.job.rank, route, self.ends.get(tag), self.monitor.alarm, self.tracing)
        self.outward.extend(added.outward)
        self.inward.extend(added.inward)
        self.runners.extend(added.runners)

    def add_control(self, tag: int) -> None:
        """Add the control plane, after all routes.  Processes whose links stay on the host need none."""
        symbols = tuple(tuple(program.symbols) for program in self.manifest.programs)
        alarm, codec = self.monitor.alarm, ControlCodec(symbols, self.tracing.new_trace)
        if self.job.rank != 0 and self.job.rank not in self.between_hosts:
            return
        if self.job.rank != 0:
            link = self.transport.host_link(0, tag)
            self.runners.append(ControlReceiver(alarm, self._remote(0), codec, link, tuple(self.followers)))
            return
        self.control.extend(self.followers)
        for rank in sorted(self.between_hosts - {0}):
            sender = ControlSender(alarm, self._remote(rank), codec, self.transport.host_link(rank, tag))
            self.control.append(sender.control)
            self.runners.append(sender)

    def _rank(self, stage: int | None) -> int:
        """The caller is on rank 0."""
        return 0 if stage is None else self.ranks[stage]

    def _remote(self, rank: int) -> RemoteStage:
        peer = self.job.peers[rank]
        return RemoteStage(self.ranks.index(rank), peer.device, str(peer))

    def _codec(self, route: Route, tag: int) -> RouteCodec:
        source, target = self._rank(route.source), self._rank(route.target)
        peer = target if source == self.job.rank else source
        headers, texts = (self.transport.host_link(peer, 2 * tag + i) for i in range(2))
        tensors, device, ahead = headers, torch.device("cpu"), True
        if any(c.takes for c in route.programs) and self._group(source) == self._group(target) != "":
            device = self._device(self.job.rank)
            tensors, ahead = self.transport.device_link(target, tag, device), False
        programs = zip(self.manifest.programs, route.programs, strict=True)
        types = tuple(tuple(_types(program, route.source, carried)) for program, carried in programs)
        outputs = tuple(carried.places for carried in route.programs) if route.target is None else ()
        copies, stream = DeviceCopies(device), stream_on(device)
        return RouteCodec(route.source, types, headers, tensors, texts, copies, stream, ahead, outputs)

    def _device(self, rank: int) -> torch.device:
        return torch.device(self.job.peers[rank].device)

    def _group(self, rank: int) -> str:
        return kind_of(self._device(rank)).group


def _types(program: ProgramEntry, source: int | None, carried: RouteTensors) -> Iterator[InputType]:
    """The types of the tensors that a route carries in a program."""
    offered = program.inputs if source is None else [send.tensor for send in program.stages[source].sends]
    for i in carried.takes:
        yield InputType.parse(offered[i], program.symbols)
