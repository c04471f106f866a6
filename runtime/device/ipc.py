"""Memory and events of accelerators that several processes of a host share.

By the runtime library of the accelerator itself, as torch shares only memory of its own allocator, counts its users,
and sets up a context on every device whose memory a process opens, of half a gigabyte each.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

import torch

from runtime.device.kinds import kind_of

_LAZY_PEER_ACCESS = 1
_ANY_DIRECTION = 4
_REACHED_ALREADY = 704
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")  # settings of torch's


class _Handle(ctypes.Structure):
    """A handle of memory, which another process opens."""

    _fields_ = [("reserved", ctypes.c_char * 64)]


class CallFailed(RuntimeError):
    """Raised where a call of the accelerator's library fails."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} failed with status {status}")
        self.status = status


class SharedDeviceMemory:
    """The calls of one kind of accelerator.  All act on the current device and stream of the thread."""

    def __init__(self, prefix: str, library: str) -> None:
        """`prefix`: of the names of the functions.  Raises OSError if the `library` is not here."""
        self._library = ctypes.CDLL(library)
        self._prefix = prefix

    def allocate(self, nbytes: int) -> int:
        """The address of new memory.  Raises RuntimeError if there is not enough."""
        pointer = ctypes.c_void_p()
        self._call("Malloc", ctypes.byref(pointer), ctypes.c_size_t(nbytes))
        return pointer.value or 0

    def free(self, address: int) -> None:
        """Release memory that `allocate` returned; waits until the device is idle."""
        self._call("Free", ctypes.c_void_p(address))

    def handle(self, address: int) -> bytes:
        """The handle by which another process opens memory that `allocate` returned."""
        handle = _Handle()
        self._call("IpcGetMemHandle", ctypes.byref(handle), ctypes.c_void_p(address))
        return ctypes.string_at(ctypes.byref(handle), ctypes.sizeof(handle))

    def open(self, handle: bytes) -> int:
        """The address of another process's memory, of any device that the current one can reach."""
        pointer = ctypes.c_void_p()
        opened = _Handle.from_buffer_copy(handle)
        self._call("IpcOpenMemHandle", ctypes.byref(pointer), opened, ctypes.c_uint(_LAZY_PEER_ACCESS))
        return pointer.value or 0

    def close(self, address: int) -> None:
        """Release what `open` returned."""
        self._call("IpcCloseMemHandle", ctypes.c_void_p(address))

    def reach(self, index: int) -> None:
        """Have the current device reach the memory of another one of this process, without the host in between."""
        try:
            self._call("DeviceEnablePeerAccess", ctypes.c_int(index), ctypes.c_uint(0))
        except CallFailed as e:
            if e.status != _REACHED_ALREADY:
                raise

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Start a copy in a stream, given by its native handle."""
        direction = ctypes.c_int(_ANY_DIRECTION)
        addresses = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call("MemcpyAsync", *addresses, ctypes.c_size_t(nbytes), direction, ctypes.c_void_p(stream))

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, self._prefix + name)(*arguments)
        if status:
            getattr(self._library, f"{self._prefix}GetLastError")()  # it would be raised by a later call of torch
            raise CallFailed(f"{self._prefix}{name}", status)


@cache
def shared_memory_of(kind: str) -> SharedDeviceMemory | None:
    """The calls for a kind of device; None if its memory cannot be shared between processes here."""
    library = kind_of(torch.device(kind)).ipc
    try:
        return None if library is None else SharedDeviceMemory(*library())
    except OSError:
        return None


@cache
def is_shareable(source: torch.device, target: torch.device) -> bool:
    """Whether a process that computes on `target` can read memory of `source` that another process shares."""
    if source.type == "cpu" or source.type != target.type or shared_memory_of(source.type) is None:
        return False
    module = torch.get_device_module(source)
    return source == target or module.can_device_access_peer(target.index, source.index)


@cache
def reaches(source: torch.device, target: torch.device) -> bool:
    """Whether copies from `source` to `target` within this process need no host; from now on, if they can.

    False, too, where torch's allocator maps its memory itself: only torch then knows what other devices reach.
    """
    if source == target:
        return source.type != "cpu"
    if not is_shareable(source, target) or _maps_memory():
        return False
    calls = shared_memory_of(target.type)
    assert calls is not None
    try:
        with torch.get_device_module(target).device(target):
            calls.reach(source.index)
    except CallFailed:  # a device reaches a few others at a time
        return False
    return True


def _maps_memory() -> bool:
    given = " ".join(os.environ.get(name, "") for name in _ALLOCATOR).replace(" ", "").lower()
    return "expandable_segments:true" in given or "backend:cudamallocasync" in given


def new_event(device: torch.device) -> Any:
    """An event that other processes can wait for."""
    return torch.get_device_module(device).Event(interprocess=True)


def open_event(device: torch.device, handle: bytes) -> Any:
    """Another process's event, for streams on `device`."""
    return torch.get_device_module(device).Event.from_ipc_handle(device, handle)


def native_stream(device: torch.device) -> int:
    """The native handle of this thread's current stream on a device."""
    stream: Any = torch.accelerator.current_stream(device)  # whose stubs lack the handle
    return stream.native_handle
