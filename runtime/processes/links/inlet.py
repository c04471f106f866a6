"""The end of a link that receives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from runtime.device.ipc import is_shareable
from runtime.device.packs import host_memory, views_at
from runtime.distributed.links.error_codec import decode
from runtime.engine.channel import Channel, ChannelClosed
from runtime.engine.message import Failure, FinishKernels, Message, Reset, SetTrace, Values
from runtime.errors import StageError
from runtime.processes.blocks import (
    HostBlock,
    NewBlock,
    OpenDeviceBlock,
    side_stream,
)
from runtime.processes.links.link import LinkEnds, RouteEnd, Tracing, at_place, close_all, release_idle
from runtime.processes.links.packets import (
    HOST,
    BatchPacket,
    FailurePacket,
    PackedTensor,
    SlotTaken,
    TracePacket,
)
from runtime.processes.message_socket import MessageSocket


class Inlet(RouteEnd):
    """The end that receives.  A channel of which only `receive` is called, on one thread."""

    def __init__(self, connection: MessageSocket, ends: LinkEnds, alarm: Channel[None], tracing: Tracing) -> None:
        super().__init__(connection, ends, alarm)
        self._host_blocks: dict[int, HostBlock] = {}  # by slot
        self._announced: dict[tuple[int, str], NewBlock] = {}  # by slot and place, not of the host
        self._opened: dict[tuple[int, str, torch.device], OpenDeviceBlock] = {}
        self._streams: dict[torch.device, torch.Stream] = {}
        self._tracing = tracing
        self._aim = ends.target_device
        self._ahead = False

    def aim(self, device: torch.device | None, ahead: bool = False) -> None:
        """Bring the tensors of the next message to a device, if they can be; a stage's own stays its aim.

        `ahead`: whether the caller takes them there before they exist, as stages do.
        """
        self._aim, self._ahead = self._ends.target_device or device, ahead

    def is_brought_to(self, device: torch.device) -> bool:
        """Whether tensors can be taken to a device from where they are made."""
        return is_shareable(self._ends.source_device, device)

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
            case Reset() | FinishKernels():
                return packet
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
        release_idle(self._opened.values())
        self._opened.clear()
        self._host_blocks.clear()
        return []

    def _taken(self, packet: BatchPacket, descriptors: list[int]) -> Message:
        if packet.slot is None:
            return Values((), packet.sizes, program=packet.program, wanted=packet.wanted)
        events: dict[str, bytes] = {}
        try:
            self._announce(packet.slot, packet.new, descriptors)
            tensors, ready = self._take(packet, packet.slot, events)
        except ChannelClosed:
            raise
        except Exception as e:  # memory that runs out
            self._send(SlotTaken(packet.slot, events))
            return Failure(self._ends.error_of(self._ends.target, e))
        finally:
            close_all(descriptors)
        self._send(SlotTaken(packet.slot, events))
        return Values(tensors, packet.sizes, ready, packet.program, packet.wanted)

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
        tensors = self._empties(packet.tensors)
        ready: list[torch.Event] = []
        for place in dict.fromkeys(packed.place for packed in packet.tensors):
            block = self._block(slot, place, events)
            if isinstance(block, OpenDeviceBlock) and not self._may_wait(block.device):
                block.await_filled(self._alarm.require_open)
            ready += block.take(*at_place(place, tensors, packet.tensors))
        return tensors, tuple(ready)

    def _may_wait(self, device: torch.device) -> bool:
        """Whether a device may wait for tensors, not the host.

        Not one that another process's stage may run on, which is held up where this one waits on it.
        """
        return self._ends.target is not None or (self._ahead and device == self._aim)

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

    def _empties(self, packed: Sequence[PackedTensor]) -> tuple[torch.Tensor, ...]:
        """Tensors to copy into: those of the host, for a stage on an accelerator, as one copy brings them there."""
        target, places = self._ends.target_device, [one for one in packed if one.place == HOST]
        if target is None or target.type == "cpu" or not places:
            return tuple(map(self._empty, packed))
        memory = host_memory(max(one.offset + one.nbytes for one in places))
        together = iter(views_at([(p.dtype, p.shape, p.stride, p.offset // p.dtype.itemsize) for p in places], memory))
        return tuple(next(together) if one.place == HOST else self._empty(one) for one in packed)

    def _empty(self, packed: PackedTensor) -> torch.Tensor:
        """A tensor to copy into, of a device in the memory of the stream that copies."""
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
