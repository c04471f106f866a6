"""Memory that two processes share: the one that sends fills it, the other copies from it."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from runtime.device import ipc
from runtime.device.streams import read_in, stream_on, wait_for, within

ALIGNMENT = 256  # bytes, of each tensor in a block


@dataclass(frozen=True)
class NewBlock:
    """A block that the other process has not opened yet.  Of the host's memory: a file descriptor goes with it."""

    nbytes: int
    memory: bytes = b""  # handles of an accelerator's memory, and of the event after which it is filled
    filled: bytes = b""


class HostBlock:
    """A block of the host's memory."""

    def __init__(self, descriptor: int, nbytes: int) -> None:
        """Takes the file descriptor, and closes it."""
        self.nbytes = nbytes
        self._bytes = torch.frombuffer(mmap.mmap(descriptor, nbytes), dtype=torch.uint8)
        os.close(descriptor)

    @classmethod
    def create(cls, nbytes: int) -> tuple[HostBlock, int]:
        """A new block, and a file descriptor for the other process."""
        descriptor = _memory_file(nbytes)
        return cls(os.dup(descriptor), nbytes), descriptor

    def fill(self, tensors: Sequence[torch.Tensor], offsets: Sequence[int], ready: Sequence[torch.Event]) -> None:
        """Copy dense tensors of the host, which exist already, into the block."""
        for tensor, offset in zip(tensors, offsets, strict=True):
            self._bytes[offset : offset + tensor.nbytes].copy_(_as_bytes(tensor))

    def take(self, tensors: Sequence[torch.Tensor], offsets: Sequence[int]) -> list[torch.Event]:
        """Copy from the block into dense tensors of the host.  They need no events."""
        for tensor, offset in zip(tensors, offsets, strict=True):
            _as_bytes(tensor).copy_(self._bytes[offset : offset + tensor.nbytes])
        return []


class OwnDeviceBlock:
    """A block of an accelerator's memory, at the end that fills it."""

    def __init__(self, device: torch.device, nbytes: int, stream: torch.Stream) -> None:
        """`stream`: in which it is filled.  Raises RuntimeError if the device has not so much memory left."""
        self.nbytes = nbytes
        self._device = device
        self._stream = stream
        self._calls = _calls_of(device)
        with within(stream):
            self._address = self._allocate(nbytes)
            self._filled = ipc.new_event(device)
            self.announcement = NewBlock(nbytes, self._calls.handle(self._address), self._filled.ipc_handle())
        self._taken: Any = None  # the other end's event, once it has taken something
        self._events: dict[bytes, Any] = {}  # all that it has, by their handles

    def fill(self, tensors: Sequence[torch.Tensor], offsets: Sequence[int], ready: Sequence[torch.Event]) -> None:
        """Copy dense tensors into the block, after the events `ready`, once the other end has taken what was in it."""
        with within(self._stream):
            if self._taken is not None:
                self._taken.wait()
            read_in(self._stream, tensors, ready)
            native = ipc.native_stream(self._device)
            for tensor, offset in zip(tensors, offsets, strict=True):
                self._calls.copy(self._address + offset, tensor.data_ptr(), tensor.nbytes, native)
            self._filled.record()

    def taken_by(self, handle: bytes) -> None:
        """Know the event after which the other end has taken what was in the block."""
        if handle not in self._events:
            self._events[handle] = ipc.open_event(self._device, handle)
        self._taken = self._events[handle]

    @property
    def is_idle(self) -> bool:
        """Whether the other end has taken what was in the block."""
        return (self._taken is None or self._taken.query()) and self._filled.query()

    def release(self) -> None:
        """Free the memory, once the other end has taken what was in it."""
        with within(self._stream):
            if self._taken is not None:
                self._taken.synchronize()
            self._calls.free(self._address)

    def _allocate(self, nbytes: int) -> int:
        try:
            return self._calls.allocate(nbytes)
        except RuntimeError:
            torch.accelerator.empty_cache()
            return self._calls.allocate(nbytes)


class OpenDeviceBlock:
    """A block of an accelerator's memory, at the end that takes from it, on a device of its own."""

    def __init__(self, new: NewBlock, device: torch.device, stream: torch.Stream) -> None:
        """`device`: where tensors are taken to; `stream`: in which.  Raises RuntimeError."""
        self.device = device
        self._stream = stream
        self._calls = _calls_of(device)
        with within(stream):
            self._address = self._calls.open(new.memory)
            self._filled = ipc.open_event(device, new.filled)
            self._taken = ipc.new_event(device)
            self.event = self._taken.ipc_handle()

    def await_filled(self, check: Callable[[], None]) -> None:
        """Block the host until the other end has filled the block, calling `check` meanwhile, which may raise."""
        wait_for([self._filled], check)

    def take(self, tensors: Sequence[torch.Tensor], offsets: Sequence[int]) -> list[torch.Event]:
        """Copy from the block into dense tensors that were made in its stream.  The event after which they exist."""
        if not tensors:
            return []
        with within(self._stream):
            self._filled.wait()
            native = ipc.native_stream(self.device)
            for tensor, offset in zip(tensors, offsets, strict=True):
                self._calls.copy(tensor.data_ptr(), self._address + offset, tensor.nbytes, native)
            self._taken.record()
            return [self._stream.record_event()]

    @property
    def is_idle(self) -> bool:
        """Whether all has been taken."""
        return self._taken.query()

    def release(self) -> None:
        """Unmap the memory, once all has been taken."""
        with within(self._stream):
            self._taken.synchronize()
            self._calls.close(self._address)


def room_for(nbytes: int) -> int:
    """The bytes of a block for so many: at most a quarter more, so that sizes that grow slowly need few blocks."""
    step = max(1 << 16, 1 << max(0, nbytes.bit_length() - 3))
    return -(-nbytes // step) * step


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """uint8[bytes]: a dense tensor as it lies in memory."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def side_stream(device: torch.device) -> torch.Stream:
    """A new stream on an accelerator."""
    stream = stream_on(device)
    assert stream is not None
    return stream


def _calls_of(device: torch.device) -> ipc.SharedDeviceMemory:
    calls = ipc.shared_memory_of(device.type)
    assert calls is not None
    return calls


def _memory_file(nbytes: int) -> int:
    """A file descriptor of memory that has no name, and ends with its last user."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("stagecut")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, nbytes)
    return descriptor
