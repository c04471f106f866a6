"""The two ends of a route between processes of a host.

A route has a few slots, each with a block of memory for every device that its tensors lie on.  The outlet copies the
tensors of a batch into the blocks of a free slot and says so; the inlet copies them from there to the device where
they are wanted, and gives the slot back.  On accelerators both copies wait for events, and nobody waits for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from runtime.engine.channel import Channel, ChannelClosed
from runtime.errors import StageError
from runtime.processes.blocks import (
    HostBlock,
    OpenDeviceBlock,
    OwnDeviceBlock,
)
from runtime.processes.links.packets import (
    PackedTensor,
    Packet,
    TracePacket,
    decode_packet,
    encode_packet,
)
from runtime.processes.message_socket import MessageSocket
from runtime.trace.traces import Trace


@dataclass(frozen=True)
class LinkEnds:
    """The stages at the two ends of a link, and the device where its tensors are wanted."""

    source: int | None  # None: the caller
    target: int | None
    source_device: torch.device
    target_device: torch.device | None  # None: the caller's, who takes them where they are made

    def error_of(self, stage: int | None, cause: Exception) -> StageError:
        """An error at one of the ends; the caller's counts as one of the other."""
        known = [s for s in (stage, self.target, self.source) if s is not None]
        device = self.target_device if known[0] == self.target else self.source_device
        return StageError(known[0], str(device), cause)


@dataclass
class Tracing:
    """The traces of a process, as they pass its links."""

    new_trace: Callable[[], Trace]
    caller: Trace | None = None  # that of the caller, if it is in this process
    running: dict[int, Trace] = field(default_factory=dict)  # of each stage in this process

    def sent(self, ends: LinkEnds, trace: Trace | None) -> TracePacket:
        """The packet for a message that passes an outlet: at the end, with the runs of the stage, for the caller."""
        source, begins = ends.source, trace is not None
        if source is None:
            self.caller = trace or self.caller
        elif trace is not None:
            self.running[source] = trace
        elif ends.target is None and source in self.running:
            return TracePacket(begins, self.running.pop(source).stages[source].to_json())
        return TracePacket(begins)

    def received(self, ends: LinkEnds, packet: TracePacket) -> Trace | None:
        """The trace to record in: a new one in a stage's process, the caller's in its own.  None at the end."""
        if ends.target is not None:
            return self.new_trace() if packet.begins else None
        if packet.runs and self.caller is not None and ends.source is not None:
            self.caller.stages[ends.source].add_json(packet.runs)
        return self.caller if packet.begins else None


class RouteEnd:
    """One end of a route."""

    def __init__(self, connection: MessageSocket, ends: LinkEnds, alarm: Channel[None]) -> None:
        """`alarm`: closed, with the cause, where the session of this process ends."""
        self._connection = connection
        self._ends = ends
        self._alarm = alarm

    def close(self, cause: Exception | None = None) -> None:
        """Wake the threads at both ends.  The alarm, which is closed before, has the cause."""
        self._connection.shut()

    def _send(self, packet: Packet, descriptors: Sequence[int] = ()) -> None:
        try:
            self._connection.send(encode_packet(packet), descriptors)
        except ConnectionError as e:
            self._over()
            raise ChannelClosed from e

    def _receive(self) -> tuple[Packet, list[int]]:
        try:
            data, descriptors = self._connection.receive()
        except ConnectionError as e:
            self._over()
            raise ChannelClosed from e
        return decode_packet(data), descriptors

    def _over(self) -> None:
        """Wait for the cause, which the owner of the processes finds out.  Raises ChannelClosed."""
        self._alarm.wait_closed()
        self._alarm.require_open()


def at_place(
    place: str, tensors: Sequence[torch.Tensor], packed: Sequence[PackedTensor]
) -> tuple[list[torch.Tensor], list[int]]:
    """The tensors at one place that have bytes, and their offsets."""
    here = [(t, p.offset) for t, p in zip(tensors, packed, strict=True) if p.place == place and t.numel()]
    return [tensor for tensor, _ in here], [offset for _, offset in here]


def release_idle(blocks: Iterable[HostBlock | OwnDeviceBlock | OpenDeviceBlock]) -> None:
    """Release what is not in use any more.  The rest ends with the process, as its user may never come to an end."""
    for block in blocks:
        if not isinstance(block, HostBlock) and block.is_idle:
            block.release()


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
