"""Asynchronous copies to a device, on side streams, that overlap with computation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

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
        here = self._stream(self.device)
        with within(here):
            copies = tuple(self._copy(tensor, ready) for tensor in tensors)
        return copies, (*ready, *([] if here is None else [here.record_event()]))

    def bring_from_others(
        self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]
    ) -> tuple[Sequence[torch.Tensor], Sequence[torch.Event]]:
        """The same for tensors on other accelerators; those on the host are left there."""
        far = [i for i, tensor in enumerate(tensors) if tensor.device != self.device and tensor.device.type != "cpu"]
        if not far:
            return tensors, ready
        brought, ready = self.bring([tensors[i] for i in far], ready)
        copies = dict(zip(far, brought, strict=True))
        return [copies.get(i, tensor) for i, tensor in enumerate(tensors)], ready

    def _copy(self, tensor: torch.Tensor, ready: Sequence[torch.Event]) -> torch.Tensor:
        if tensor.device == self.device:
            return tensor
        if tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        there = self._stream(tensor.device)
        with within(there):
            read_in(there, (tensor,), ready)
            return tensor.to(self.device, non_blocking=self.device.type != "cpu")

    def _stream(self, device: torch.device) -> torch.Stream | None:
        if device not in self._streams:
            self._streams[device] = stream_on(device)
        return self._streams[device]
