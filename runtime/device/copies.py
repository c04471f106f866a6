"""Asynchronous copies to a device, on side streams, that overlap with computation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.device.ipc import native_stream, reaches, shared_memory_of
from runtime.device.packs import is_as_stored, offsets_in_memory, packs_of, views, whole_memory
from runtime.device.streams import read_in, stream_on, within


class DeviceCopies:
    """Copies to one device.  Not thread-safe.

    Copies between two accelerators run in a side stream on each of them.  Copies from the host go through pinned
    memory, and do not block the host either; only copies to the host do.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: dict[torch.device, torch.Stream | None] = {}

    def bring(
        self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Event, ...]]:
        """The tensors on this device, and the events after which they exist.  `ready`: those of the arguments."""
        if all(tensor.device == self.device for tensor in tensors):
            return tuple(tensors), tuple(ready)
        here = self.stream(self.device)
        with within(here):
            copies = tuple(self._copies(tensors, ready))
        return copies, (*ready, *([] if here is None else [here.record_event()]))

    def _copies(self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> list[torch.Tensor]:
        """Copies of tensors; those of a small piece of the host's memory are made by one copy of that piece."""
        if self.device.type == "cpu":
            return [self._copy(tensor, ready) for tensor in tensors]
        made: dict[int, torch.Tensor] = {}
        for pack in packs_of(tensors):
            if (alike := [tensors[i] for i in pack])[0].device.type == "cpu":
                memory = self._copy(whole_memory(alike[0]), ready)
                made |= zip(pack, views(memory, alike, offsets_in_memory(alike)), strict=True)
        return [made[i] if i in made else self._copy(tensor, ready) for i, tensor in enumerate(tensors)]

    def _copy(self, tensor: torch.Tensor, ready: Sequence[torch.Event]) -> torch.Tensor:
        if tensor.device == self.device:
            return tensor
        if tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        there = self.stream(tensor.device)
        with within(there):
            read_in(there, (tensor,), ready)
            return tensor.to(self.device, non_blocking=self.device.type != "cpu")

    def stream(self, device: torch.device) -> torch.Stream | None:
        """The side stream for copies on a device."""
        if device not in self._streams:
            self._streams[device] = stream_on(device)
        return self._streams[device]


def start_copy(target: torch.Tensor, source: torch.Tensor, pinned: bool = False) -> None:
    """Start to copy a tensor of any device to another, in this thread's current stream on the target's device.

    Between accelerators, and from the host's memory if it is known to be `pinned`, the copy is a call of their own
    library, where that reaches both: torch's call takes the host some five times as long.  Whoever calls keeps the
    source until it is copied.
    """
    here, is_host = target.device, source.is_cpu
    calls = shared_memory_of(here.type)
    near = calls is not None and source.dtype == target.dtype and (pinned if is_host else reaches(source.device, here))
    if calls is not None and near and source.stride() == target.stride() and is_as_stored(source):
        calls.copy(target.data_ptr(), source.data_ptr(), source.nbytes, native_stream(here))
    else:
        pins = is_host and not target.is_cpu
        target.copy_(source.pin_memory() if pins else source, non_blocking=True)
