"""Where tensors arrive on a device: copied beside what the device computes, while the host goes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.device.streams import read_in, stream_on, within


class Dock:
    """One end of all ways to a device.  Used by one thread.

    A copy between two accelerators waits, on each side, for a stream that does nothing else.  From the
    host it goes through pinned memory, and so is not waited for either; only one to the host is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: dict[torch.device, torch.Stream | None] = {}

    def take(
        self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Event, ...]]:
        """The tensors on this device, and the events after which they are there."""
        if all(tensor.device == self.device for tensor in tensors):
            return tuple(tensors), tuple(ready)
        here = self._stream(self.device)
        with within(here):
            copies = tuple(self._copy(tensor, ready) for tensor in tensors)
        return copies, (*ready, *([] if here is None else [here.record_event()]))

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
