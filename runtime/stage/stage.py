"""A stage with its weights on a device, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from runtime.device.copies import DeviceCopies
from runtime.device.streams import read_in, stream_on
from runtime.manifest import ManifestError, StageEntry
from runtime.stage.shared_lock import SharedLock

_COMPILING = SharedLock()  # held alone to compile or record, which fails if other threads run stages meanwhile
ShapeKey = Hashable


def shape_key(tensors: Sequence[torch.Tensor], numbers: Mapping[str, int]) -> ShapeKey:
    """A key that is equal for batches that the same kernels can compute."""
    return tuple((tensor.shape, tensor.stride()) for tensor in tensors), tuple(numbers.items())


@dataclass(frozen=True)
class LoadedStage:
    """A generated module on its device, and the initial values of its state."""

    index: int
    entry: StageEntry
    device: torch.device
    module: nn.Module
    first_state: Mapping[str, torch.Tensor] = field(repr=False)  # buffer -> value, on the host to save device memory
    call: Callable[..., object] = field(repr=False)  # the module, or a faster version of it
    is_prepared: Callable[[ShapeKey], bool] | None = field(repr=False)  # whether `call` is compiled; None: needs not be
    stream: torch.Stream | None = field(repr=False)  # in which it computes; None on the CPU
    copies: DeviceCopies = field(repr=False)

    @classmethod
    def from_module(cls, index: int, entry: StageEntry, device: torch.device, module: nn.Module) -> LoadedStage:
        """Raises ManifestError if the module lacks a buffer of its state."""
        try:
            buffers = {name: module.get_buffer(name) for name in entry.state}
        except AttributeError as e:
            raise ManifestError(f"{entry.module} lacks a buffer that the manifest lists as state: {e}") from e
        first = {name: buffer.detach().to("cpu", copy=True) for name, buffer in buffers.items()}
        return cls(index, entry, device, module, first, module, None, stream_on(device), DeviceCopies(device))

    def receive(self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> tuple[torch.Tensor, ...]:
        """The tensors on the stage's device.  Its stream waits for the copies, and for the events `ready`."""
        arrived, ready = self.copies.bring(tensors, ready)
        read_in(self.stream, arrived, ready)
        return arrived

    def __call__(self, received: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
        """The tensors that the stage sends, in the order of the manifest's table, as those that it receives are.

        `sizes`: the value of every symbol.  Raises TypeError if `forward` returns something else.
        """
        numbers = {name: sizes[name] for name in self.entry.sizes}
        unprepared = self.is_prepared is not None and not self.is_prepared(shape_key(received, numbers))
        with _COMPILING.hold(exclusive=unprepared):
            sent = self.call(*received, **numbers)
        if not isinstance(sent, tuple) or len(sent) != len(self.entry.sends):
            count = len(sent) if isinstance(sent, tuple) else type(sent).__name__
            raise TypeError(f"{self.entry.module}: forward should return {len(self.entry.sends)} tensors, not {count}")
        return self._detached(sent) if self.first_state else sent

    def reset(self) -> None:
        """Restore the initial values of the state.  Must not be called while the stage runs."""
        with torch.no_grad():
            for name, first in self.first_state.items():
                self.module.get_buffer(name).copy_(first)

    def _detached(self, sent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Copies of tensors that are views of the state, which the next batch changes while others still read them."""
        state = {self.module.get_buffer(name).untyped_storage().data_ptr() for name in self.first_state}
        return tuple(t.clone() if t.untyped_storage().data_ptr() in state else t for t in sent)
