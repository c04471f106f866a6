"""The two ends of a route between processes of a host.

A route has a few slots, each with a block of memory for every device that its tensors lie on.  The outlet copies the
tensors of a batch into the blocks of a free slot and says so; the inlet copies them from there to the device where
they are wanted, and gives the slot back.  On accelerators both copies wait for events, and nobody waits for them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from runtime.device.copies import DeviceCopies
from runtime.device.ipc import is_shareable
from runtime.distributed.error_codec import decode, encode
from runtime.distributed.wire_format import dense
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, Message, Reset, SetTrace, Values
from runtime.errors import StageError
from runtime.processes.blocks import (
    ALIGNMENT,
    HostBlock,
    NewBlock,
    OpenDeviceBlock,
    OwnDeviceBlock,
    room_for,
    side_stream,
)
from runtime.processes.message_socket import MessageSocket
from runtime.processes.packets import (
    HOST,
    BatchPacket,
    FailurePacket,
    PackedTensor,
    Packet,
    ResetPacket,
    SlotTaken,
    TracePacket,
    decode_packet,
    encode_packet,
)
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


class _Link:
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


class Outlet(_Link):
    """The end that sends.  A channel of which only `send` is called, on one thread."""

    def __init__(
        self, connection: MessageSocket, ends: LinkEnds, alarm: Channel[None], tracing: Tracing, slots: int
    ) -> None:
        super().__init__(connection, ends, alarm)
        self._free = deque(range(slots))
        self._slots: list[dict[str, HostBlock | OwnDeviceBlock]] = [{} for _ in range(slots)]
        self._streams: dict[str, torch.Stream] = {}
        self._to_host = DeviceCopies(torch.device("cpu"))
        self._tracing = tracing

    def send(self, message: Message) -> None:
        """Send a message.  Waits for a free slot if it has tensors.  Raises ChannelClosed."""
        match message:
            case Values():
                self._send_batch(message)
            case Failure(error):
                self._send(FailurePacket(encode(error)))
            case Reset():
                self._send(ResetPacket())
            case SetTrace(trace):
                self._send(self._tracing.sent(self._ends, trace))

    def receive(self) -> Message:
        """An outlet sends."""
        raise TypeError("an outlet sends")

    def drain(self) -> list[Message]:
        """Release the slots.  Nothing is inside that could be taken out."""
        self._connection.close()
        for blocks in self._slots:
            _release(blocks.values())
            blocks.clear()
        return []

    def _send_batch(self, batch: Values) -> None:
        if not batch.tensors:
            return self._send(BatchPacket(batch.sizes, batch.program, (), None))
        slot, descriptors = self._free_slot(), list[int]()
        try:
            packet = self._filled(slot, batch, descriptors)
        except Exception as e:  # memory that runs out
            self._empty_slot(slot)
            packet = FailurePacket(encode(self._ends.error_of(self._ends.source, e)))
        try:
            self._send(packet, descriptors)
        finally:
            _close_all(descriptors)

    def _empty_slot(self, slot: int) -> None:
        """Forget the blocks of a slot, some of which the other end may not know."""
        for block in self._slots[slot].values():
            if isinstance(block, OwnDeviceBlock):
                block.release()
        self._slots[slot].clear()
        self._free.appendleft(slot)

    def _free_slot(self) -> int:
        while not self._free:
            packet, _ = self._receive()
            assert isinstance(packet, SlotTaken)
            for place, handle in packet.events.items():
                block = self._slots[packet.slot][place]
                assert isinstance(block, OwnDeviceBlock)
                block.taken_by(handle)
            self._free.append(packet.slot)
        return self._free.popleft()

    def _filled(self, slot: int, batch: Values, descriptors: list[int]) -> BatchPacket:
        """Copy the tensors of a batch into the blocks of a slot, which become larger where they must."""
        tensors = [dense(self._at_place(tensor.detach(), batch.ready)) for tensor in batch.tensors]
        packed, sizes = _pack(tensors)
        new: dict[str, NewBlock] = {}
        for place, nbytes in sizes.items():
            block = self._slots[slot].get(place)
            if block is None or block.nbytes < nbytes:
                new[place] = self._renew(slot, place, room_for(nbytes), descriptors)
            self._slots[slot][place].fill(*_at(place, tensors, packed), batch.ready)
        return BatchPacket(batch.sizes, batch.program, packed, slot, new)

    def _at_place(self, tensor: torch.Tensor, ready: Sequence[torch.Event]) -> torch.Tensor:
        """The tensor where a block can hold it: on its device, or, if that cannot be shared, on the host."""
        if tensor.device.type == "cpu" or is_shareable(tensor.device, self._ends.target_device or tensor.device):
            return tensor
        return self._to_host.bring([tensor], ready)[0][0]

    def _renew(self, slot: int, place: str, nbytes: int, descriptors: list[int]) -> NewBlock:
        old = self._slots[slot].pop(place, None)
        if isinstance(old, OwnDeviceBlock):
            old.release()
        if place == HOST:
            self._slots[slot][place], descriptor = HostBlock.create(nbytes)
            descriptors.append(descriptor)
            return NewBlock(nbytes)
        device = torch.device(place)
        stream = self._streams.setdefault(place, side_stream(device))
        block = self._slots[slot][place] = OwnDeviceBlock(device, nbytes, stream)
        return block.announcement


class Inlet(_Link):
    """The end that receives.  A channel of which only `receive` is called, on one thread."""

    def __init__(self, connection: MessageSocket, ends: LinkEnds, alarm: Channel[None], tracing: Tracing) -> None:
        super().__init__(connection, ends, alarm)
        self._slots: dict[int, dict[str, HostBlock | OpenDeviceBlock]] = {}
        self._streams: dict[torch.device, torch.Stream] = {}
        self._tracing = tracing

    def receive(self) -> Message:
        """The next message, with its tensors on the device where they are wanted.  Raises ChannelClosed."""
        packet, descriptors = self._receive()
        match packet:
            case BatchPacket():
                return self._taken(packet, descriptors)
            case FailurePacket(error):
                failed = decode(error)
                assert isinstance(failed, StageError)
                return Failure(failed)
            case ResetPacket():
                return Reset()
            case TracePacket():
                return SetTrace(self._tracing.received(self._ends, packet))
            case SlotTaken():
                raise AssertionError("an outlet receives what an outlet should")

    def send(self, message: Message) -> None:
        """An inlet receives."""
        raise TypeError("an inlet receives")

    def drain(self) -> list[Message]:
        """Release the slots.  Nothing is inside that could be taken out."""
        self._connection.close()
        for blocks in self._slots.values():
            _release(blocks.values())
        self._slots.clear()
        return []

    def _taken(self, packet: BatchPacket, descriptors: list[int]) -> Message:
        if packet.slot is None:
            return Values((), packet.sizes, program=packet.program)
        events: dict[str, bytes] = {}
        try:
            self._open(packet, descriptors, events)
            tensors, ready = self._take(packet, packet.slot)
        except Exception as e:  # memory that runs out
            self._send(SlotTaken(packet.slot, events))
            return Failure(self._ends.error_of(self._ends.target, e))
        finally:
            _close_all(descriptors)
        self._send(SlotTaken(packet.slot, events))
        return Values(tensors, packet.sizes, ready, packet.program)

    def _open(self, packet: BatchPacket, descriptors: list[int], events: dict[str, bytes]) -> None:
        assert packet.slot is not None
        blocks = self._slots.setdefault(packet.slot, {})
        for place, new in packet.new.items():
            old = blocks.pop(place, None)
            if isinstance(old, OpenDeviceBlock):
                old.release()
            if place == HOST:
                blocks[place] = HostBlock(descriptors.pop(), new.nbytes)
                continue
            device = self._device(place)
            blocks[place] = block = OpenDeviceBlock(new, device, self._stream(device))
            events[place] = block.event

    def _take(self, packet: BatchPacket, slot: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Event, ...]]:
        tensors = tuple(self._empty(packed) for packed in packet.tensors)
        ready: list[torch.Event] = []
        for place, block in self._slots[slot].items():
            ready += block.take(*_at(place, tensors, packet.tensors))
        return tensors, tuple(ready)

    def _empty(self, packed: PackedTensor) -> torch.Tensor:
        """A tensor to copy into, in the memory of the stream that copies."""
        if packed.place == HOST:
            return torch.empty_strided(packed.shape, packed.stride, dtype=packed.dtype)
        device = self._device(packed.place)
        with self._stream(device):
            return torch.empty_strided(packed.shape, packed.stride, dtype=packed.dtype, device=device)

    def _device(self, place: str) -> torch.device:
        return self._ends.target_device or torch.device(place)

    def _stream(self, device: torch.device) -> torch.Stream:
        if device not in self._streams:
            self._streams[device] = side_stream(device)
        return self._streams[device]


@dataclass(frozen=True)
class Carrier:
    """The thread that takes messages of a channel without a limit to an outlet, so that the caller never waits."""

    channel: Channel[Message]
    outlet: Outlet

    def run(self) -> None:
        """Until a channel is closed."""
        try:
            with torch.no_grad():
                while True:
                    self.outlet.send(self.channel.receive())
        except ChannelClosed:
            self.outlet.drain()


def _pack(tensors: Sequence[torch.Tensor]) -> tuple[tuple[PackedTensor, ...], dict[str, int]]:
    """The place and offset of each tensor, and the bytes of the block at each place."""
    sizes: dict[str, int] = {}
    packed: list[PackedTensor] = []
    for tensor in tensors:
        place = HOST if tensor.device.type == "cpu" else str(tensor.device)
        offset = sizes.get(place, 0)
        packed.append(PackedTensor(tensor.dtype, tuple(tensor.shape), tensor.stride(), place, offset))
        sizes[place] = offset + -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return tuple(packed), {place: max(nbytes, ALIGNMENT) for place, nbytes in sizes.items()}


def _at(
    place: str, tensors: Sequence[torch.Tensor], packed: Sequence[PackedTensor]
) -> tuple[list[torch.Tensor], list[int]]:
    """The tensors at one place that have bytes, and their offsets."""
    here = [(t, p.offset) for t, p in zip(tensors, packed, strict=True) if p.place == place and t.numel()]
    return [tensor for tensor, _ in here], [offset for _, offset in here]


def _release(blocks: Iterable[HostBlock | OwnDeviceBlock | OpenDeviceBlock]) -> None:
    """Release what is not in use any more.  The rest ends with the process, as its user may never come to an end."""
    for block in blocks:
        if not isinstance(block, HostBlock) and block.is_idle:
            block.release()


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
