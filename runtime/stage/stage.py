"""A stage with its weights on a device, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from runtime.device.copies import Dock
from runtime.device.streams import read_in, stream_on
from runtime.manifest import ManifestError, Stage
from runtime.stage.shared_lock import Turns

_TURNS = Turns()  # torch compiles and records for a process as a whole: what runs meanwhile on other threads fails
Sizes = Hashable


def sizes_of(tensors: Sequence[torch.Tensor], numbers: Mapping[str, int]) -> Sizes:
    """Equal for batches for which the same kernels do."""
    return tuple((tensor.shape, tensor.stride()) for tensor in tensors), tuple(numbers.items())


@dataclass(frozen=True)
class LoadedStage:
    """A generated module where it runs, and the first values of its state."""

    index: int
    table: Stage
    device: torch.device
    module: nn.Module
    first_state: Mapping[str, torch.Tensor] = field(repr=False)  # on the host: device memory is scarce
    call: Callable[..., object] = field(repr=False)  # the module, or what was made of it to be faster
    knows: Callable[[Sizes], bool] | None = field(repr=False)  # whether CALL is ready for such sizes; None: for all
    stream: torch.Stream | None = field(repr=False)  # in which it computes, on an accelerator
    dock: Dock = field(repr=False)

    @classmethod
    def of(cls, index: int, table: Stage, device: torch.device, module: nn.Module) -> LoadedStage:
        """Raises ManifestError where the module lacks a buffer of its state."""
        try:
            buffers = {name: module.get_buffer(name) for name in table.state}
        except AttributeError as e:
            raise ManifestError(f"{table.module} lacks a buffer that the manifest lists as state: {e}") from e
        first = {name: buffer.detach().to("cpu", copy=True) for name, buffer in buffers.items()}
        return cls(index, table, device, module, first, module, None, stream_on(device), Dock(device))

    def receive(self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> tuple[torch.Tensor, ...]:
        """The tensors on the device of the stage, for whose stream they are there after the events."""
        arrived, ready = self.dock.take(tensors, ready)
        read_in(self.stream, arrived, ready)
        return arrived

    def __call__(self, received: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
        """What the stage sends, for what it received: each in the order of the manifest's table."""
        numbers = {name: sizes[name] for name in self.table.sizes}
        with _TURNS.take(alone=self.knows is not None and not self.knows(sizes_of(received, numbers))):
            sent = self.call(*received, **numbers)
        if not isinstance(sent, tuple) or len(sent) != len(self.table.sends):
            count = len(sent) if isinstance(sent, tuple) else type(sent).__name__
            raise TypeError(f"{self.table.module}: forward should return {len(self.table.sends)} tensors, not {count}")
        return self._detached(sent) if self.first_state else sent

    def reset(self) -> None:
        """Put the first values of the state back.  Not while the stage runs."""
        with torch.no_grad():
            for name, first in self.first_state.items():
                self.module.get_buffer(name).copy_(first)

    def _detached(self, sent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Copies where a tensor is a view of the state, which the next batch changes while others still read it."""
        state = {self.module.get_buffer(name).untyped_storage().data_ptr() for name in self.first_state}
        return tuple(t.clone() if t.untyped_storage().data_ptr() in state else t for t in sent)
