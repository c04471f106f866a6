"""The end of a link that sends."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from threading import Lock

import torch

from runtime.device.copies import DeviceCopies
from runtime.device.ipc import is_shareable
from runtime.distributed.links.error_codec import encode
from runtime.distributed.links.wire_format import dense
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, FinishKernels, Message, Reset, SetTrace, Values
from runtime.processes.blocks import (
    ALIGNMENT,
    HostBlock,
    NewBlock,
    OwnDeviceBlock,
    room_for,
    side_stream,
)
from runtime.processes.links.link import LinkEnds, RouteEnd, Tracing, at_place, close_all, release_idle
from runtime.processes.links.packets import (
    HOST,
    BatchPacket,
    FailurePacket,
    PackedTensor,
    SlotTaken,
)
from runtime.processes.message_socket import MessageSocket

SMALL = 1 << 20  # bytes of an input that goes by the host


class Outlet(RouteEnd):
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
            case Reset() | FinishKernels():
                self._send(message)
            case SetTrace(trace):
                self._send(self._tracing.sent(self._ends, trace))

    def receive(self) -> Message:
        """An outlet sends."""
        raise TypeError("an outlet sends")

    def drain(self) -> list[Message]:
        """Release the slots.  Nothing is inside that could be taken out."""
        self._connection.close()
        for blocks in self._slots:
            release_idle(blocks.values())
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
            return self._send(BatchPacket(batch.sizes, batch.program, (), None, wanted=batch.wanted))
        slot, descriptors = self._free_slot(), list[int]()
        try:
            packet = self._filled(slot, batch, descriptors)
        except Exception as e:  # memory that runs out
            self._empty_slot(slot)
            packet = FailurePacket(encode(self._ends.error_of(self._ends.source, e)))
        try:
            self._send(packet, descriptors)
        finally:
            close_all(descriptors)

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
        tensors = [dense(self._moved(tensor.detach(), batch.ready)) for tensor in batch.tensors]
        packed, sizes = _pack(tensors)
        new: dict[str, NewBlock] = {}
        for place, nbytes in sizes.items():
            block = self._slots[slot].get(place)
            if block is None or block.nbytes < nbytes:
                new[place] = self._renew(slot, place, room_for(nbytes), descriptors)
            self._slots[slot][place].fill(*at_place(place, tensors, packed), batch.ready)
        return BatchPacket(batch.sizes, batch.program, packed, slot, new, batch.wanted)

    def _moved(self, tensor: torch.Tensor, ready: Sequence[torch.Event]) -> torch.Tensor:
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
