"""The two ends of a route between processes of a host.

A route has a few slots, each with a block of memory for every device that its tensors lie on.  The outlet copies the
tensors of a batch into the blocks of a free slot and says so; the inlet copies them from there to the device where
they are wanted, and gives the slot back.  On accelerators both copies wait for events, and nobody waits for them.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

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

SMALL = 1 << 20  # bytes of an input that goes by the host


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

    def is_ready(self, message: Message) -> bool:
        """Whether `send` would wait for nothing: neither for a slot nor for tensors that must go by the host."""
        if not isinstance(message, Values):
            return True
        while not self._free and self._connection.has_message():
            self._await_slot()
        slow = any(t.device.type != "cpu" and not self._stays(t) for t in message.tensors)
        return bool(self._free) and (not slow or all(event.query() for event in message.ready))

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
            self._await_slot()
        return self._free.popleft()

    def _await_slot(self) -> None:
        packet, _ = self._receive()
        assert isinstance(packet, SlotTaken)
        for place, handle in packet.events.items():
            block = self._slots[packet.slot][place]
            assert isinstance(block, OwnDeviceBlock)
            block.taken_by(handle)
        self._free.append(packet.slot)

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
        if self._stays(tensor):
            return tensor
        if not is_shareable(tensor.device, self._ends.target_device or tensor.device):
            text = f"tensors go from {tensor.device} to {self._ends.target_device} by the host: they share no memory"
            warnings.warn(text, stacklevel=1)  # once
        return self._to_host.bring([tensor], ready)[0][0]

    def _stays(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is copied where it lies.

        Small inputs are not: a device changes from one process's work to another's for each copy of the caller's.
        """
        if tensor.device.type == "cpu":
            return True
        small = self._ends.source is None and tensor.nbytes <= SMALL
        return not small and is_shareable(tensor.device, self._ends.target_device or tensor.device)

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
        self._host_blocks: dict[int, HostBlock] = {}  # by slot
        self._announced: dict[tuple[int, str], NewBlock] = {}  # by slot and place, not of the host
        self._opened: dict[tuple[int, str, torch.device], OpenDeviceBlock] = {}
        self._streams: dict[torch.device, torch.Stream] = {}
        self._tracing = tracing
        self._aim = ends.target_device

    def aim(self, device: torch.device | None) -> None:
        """Bring the tensors of the next message to a device, if they can be; a stage's own stays its aim."""
        self._aim = self._ends.target_device or device

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
        _release(self._opened.values())
        self._opened.clear()
        self._host_blocks.clear()
        return []

    def _taken(self, packet: BatchPacket, descriptors: list[int]) -> Message:
        if packet.slot is None:
            return Values((), packet.sizes, program=packet.program)
        events: dict[str, bytes] = {}
        try:
            self._announce(packet.slot, packet.new, descriptors)
            tensors, ready = self._take(packet, packet.slot, events)
        except Exception as e:  # memory that runs out
            self._send(SlotTaken(packet.slot, events))
            return Failure(self._ends.error_of(self._ends.target, e))
        finally:
            _close_all(descriptors)
        self._send(SlotTaken(packet.slot, events))
        return Values(tensors, packet.sizes, ready, packet.program)

    def _announce(self, slot: int, new: Mapping[str, NewBlock], descriptors: list[int]) -> None:
        """Know the new blocks of a slot, and forget those that they replace."""
        for place, block in new.items():
            if place == HOST:
                self._host_blocks[slot] = HostBlock(descriptors.pop(), block.nbytes)
                continue
            self._announced[slot, place] = block
            for key in [key for key in self._opened if key[:2] == (slot, place)]:
                self._opened.pop(key).release()

    def _take(
        self, packet: BatchPacket, slot: int, events: dict[str, bytes]
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Event, ...]]:
        """The tensors of a batch, and the events after which they exist.  Adds the `events` of blocks just opened."""
        tensors = tuple(self._empty(packed) for packed in packet.tensors)
        ready: list[torch.Event] = []
        for place in dict.fromkeys(packed.place for packed in packet.tensors):
            ready += self._block(slot, place, events).take(*_at(place, tensors, packet.tensors))
        return tensors, tuple(ready)

    def _block(self, slot: int, place: str, events: dict[str, bytes]) -> HostBlock | OpenDeviceBlock:
        if place == HOST:
            return self._host_blocks[slot]
        device = self._device(place)
        opened = self._opened.get((slot, place, device))
        if opened is None:
            opened = OpenDeviceBlock(self._announced[slot, place], device, self._stream(device))
            self._opened[slot, place, device] = opened
        events[place] = opened.event
        return opened

    def _empty(self, packed: PackedTensor) -> torch.Tensor:
        """A tensor to copy into, in the memory of the stream that copies."""
        if packed.place == HOST:
            return torch.empty_strided(packed.shape, packed.stride, dtype=packed.dtype)
        device = self._device(packed.place)
        with self._stream(device):
            return torch.empty_strided(packed.shape, packed.stride, dtype=packed.dtype, device=device)

    def _device(self, place: str) -> torch.device:
        """The device to take tensors to: the aim, or, where that cannot reach them, where they lie."""
        source = torch.device(place)
        return self._aim if self._aim is not None and is_shareable(source, self._aim) else source

    def _stream(self, device: torch.device) -> torch.Stream:
        if device not in self._streams:
            self._streams[device] = side_stream(device)
        return self._streams[device]


class Carrier:
    """The caller's end of a link: a channel without a limit, so that the caller never waits, and its thread.

    A message that can be sent at once is, by the thread that calls: to wake another takes longer.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._left: Channel[Message] = Channel()
        self._sending = Lock()  # held while a message enters the outlet
        self._behind = 0  # messages that the thread has yet to send

    def send(self, message: Message) -> None:
        """Send a message, now or later.  Raises ChannelClosed.  To be called by one thread at a time."""
        with self._sending:
            at_once = self._behind == 0 and self._outlet.is_ready(message)
            if at_once:
                self._outlet.send(message)
            else:
                self._behind += 1
        if not at_once:
            self._left.send(message)

    def receive(self) -> Message:
        """The caller's end sends."""
        raise TypeError("the caller's end of a link sends")

    def run(self) -> None:
        """Send what is left, until a channel is closed."""
        try:
            with torch.no_grad():
                while True:
                    self._outlet.send(self._left.receive())
                    with self._sending:
                        self._behind -= 1
        except ChannelClosed:
            with self._sending:
                self._outlet.drain()

    def close(self, cause: Exception | None = None) -> None:
        """Wake the thread, and those at the other end."""
        self._left.close(cause)
        self._outlet.close(cause)

    def drain(self) -> list[Message]:
        """The messages that were not sent."""
        return self._left.drain()


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
