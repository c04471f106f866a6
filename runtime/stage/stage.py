"""A stage with its weights on a device, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

from runtime.device.copies import DeviceCopies
from runtime.device.ipc import reaches
from runtime.device.packs import Pack
from runtime.device.streams import read_in, stream_on, wait_in, within
from runtime.errors import ManifestError
from runtime.manifest.manifest import POOL_OF, ProgramStage
from runtime.stage.helper_kernels import HelperKernels
from runtime.stage.shared_lock import SharedLock

_COMPILING = SharedLock()  # held alone to compile or record, which fails if other threads run stages meanwhile
_NEW_TOKENS = "seq"  # the symbol for those of a text in a step
ShapeKey = tuple[tuple[tuple[torch.Size, tuple[int, ...]], ...], tuple[tuple[str, int], ...]]


def shape_key(tensors: Sequence[torch.Tensor], numbers: Mapping[str, int]) -> ShapeKey:
    """A key that is equal for batches that the same kernels can compute."""
    return tuple((tensor.shape, tensor.stride()) for tensor in tensors), tuple(numbers.items())


def launching() -> AbstractContextManager[bool]:
    """A block in which graphs may be launched, if it is True: no stage compiles, or records one."""
    return _COMPILING.try_hold()


class StageLaunch(Protocol):
    """A stage recorded for batches of one shape, as one launch."""

    def launch(self, tensors: Sequence[torch.Tensor], pack: Pack | None = None) -> tuple[torch.Tensor, ...]:
        """The outputs for these tensors, of which none ever changes: one that it has had is not copied again.

        `pack`: where some of them lie.
        """
        ...

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs for these tensors, on the stage's device, which may change later."""
        ...


@dataclass(frozen=True)
class StageModule:
    """The generated module that a stage runs in one program."""

    entry: ProgramStage
    module: nn.Module
    call: Callable[..., object] = field(repr=False)  # the module, or a faster version of it
    is_prepared: Callable[[ShapeKey], bool] | None = field(default=None, repr=False)  # None: `call` needs no compiling
    graphs: Callable[[ShapeKey], StageLaunch | None] | None = field(
        default=None, repr=False
    )  # of `call`, if it has some

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The buffers that a call changes, pools among them.  Raises ManifestError if the module lacks one."""
        try:
            return {name: self.module.get_buffer(name) for name in self.entry.state}
        except AttributeError as e:
            raise ManifestError(f"{self.entry.module} lacks a buffer that the manifest lists as state: {e}") from e

    @property
    def pools(self) -> dict[str, torch.Tensor]:
        """Those of the state that are zeros at first.  What lies at address 0 belongs to nobody."""
        zeros = {name for name, held in self.entry.holds.items() if held.zeros}
        return {name: tensor for name, tensor in self.state.items() if name in zeros}

    @property
    def addresses(self) -> frozenset[int]:
        """The places of the inputs that say where in the pools the rows of a batch lie."""
        named = enumerate((receive.source, receive.tensor.name) for receive in self.entry.receives)
        return frozenset(i for i, (source, name) in named if source is None and name in POOL_OF and self.pools)

    @property
    def new_tokens(self) -> tuple[int, int] | None:
        """Of a decoder: the place of a tensor, and its dimension that is the number of new tokens of a text."""
        shapes = enumerate(receive.tensor.shape for receive in self.entry.receives)
        return next(((i, shape.index(_NEW_TOKENS)) for i, shape in shapes if _NEW_TOKENS in shape), None)

    def graph_of(self, key: ShapeKey) -> StageLaunch | None:
        """The graph that is all that the stage does for batches of these shapes, if there is one."""
        return None if self.graphs is None else self.graphs(key)

    def key_of(self, received: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> ShapeKey:
        """The key that graphs know a batch by."""
        return shape_key(received, self._numbers(sizes))

    def _numbers(self, sizes: Mapping[str, int]) -> dict[str, int]:
        return {name: sizes[name] for name in self.entry.sizes}

    def __call__(self, received: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> tuple[torch.Tensor, ...]:
        """The tensors that the stage sends, in the order of the manifest's table, as those that it receives are.

        `sizes`: the value of every symbol.  Raises TypeError if `forward` returns something else.
        """
        numbers = self._numbers(sizes)
        unprepared = self.is_prepared is not None and not self.is_prepared(shape_key(received, numbers))
        with _COMPILING.hold(exclusive=unprepared):
            sent = self.call(*received, **numbers)
        if not isinstance(sent, tuple) or len(sent) != len(self.entry.sends):
            count = len(sent) if isinstance(sent, tuple) else type(sent).__name__
            raise TypeError(f"{self.entry.module}: forward should return {len(self.entry.sends)} tensors, not {count}")
        return sent


@dataclass(frozen=True)
class LoadedStage:
    """The modules of a stage on its device, one a program over the same tensors, and the first values of its state."""

    index: int
    device: torch.device
    programs: tuple[StageModule, ...]
    first_state: Mapping[str, torch.Tensor] = field(repr=False)  # of buffers, pools apart; on the host to save memory
    stream: torch.Stream | None = field(repr=False)  # in which it computes; None on the CPU
    copies: DeviceCopies = field(repr=False)
    kernels: HelperKernels = field(default=HelperKernels(), repr=False)  # that its modules run without until then

    @classmethod
    def from_modules(cls, index: int, device: torch.device, programs: Sequence[StageModule]) -> LoadedStage:
        """Raises ManifestError if a module lacks a buffer of its state."""
        buffers = {name: buffer for program in programs for name, buffer in program.state.items()}
        pools = {name for program in programs for name in program.pools}
        kept = {name: buffer for name, buffer in buffers.items() if name not in pools}
        first = {name: buffer.detach().to("cpu", copy=True) for name, buffer in kept.items()}
        return cls(index, device, tuple(programs), first, stream_on(device), DeviceCopies(device))

    def receive(self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> tuple[torch.Tensor, ...]:
        """The tensors on the stage's device.  Its stream waits for the copies, and for the events `ready`."""
        arrived, ready = self.copies.bring(tensors, ready)
        read_in(self.stream, arrived, ready)
        return arrived

    def __call__(
        self, received: Sequence[torch.Tensor], sizes: Mapping[str, int], program: int = 0
    ) -> tuple[torch.Tensor, ...]:
        """The tensors that the stage sends in a program, see `StageModule`."""
        sent = self.programs[program](received, sizes)
        return self._detached(sent) if self.programs[program].entry.state else sent

    def reading(self, tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]) -> AbstractContextManager[object]:
        """A block whose kernels may read these tensors, and copy them from other devices, after the events `ready`.

        Such a copy begins when the stage has done all before: a buffer of its own would cost the host more.  Whoever
        asks keeps the tensors until the kernels are done: to have torch keep them costs an event for each.
        """
        far = {there for tensor in tensors if not tensor.is_cpu and (there := tensor.device) != self.device}
        if by_torch := [device for device in far if not reaches(device, self.device)]:
            return self._with_sources(by_torch, tensors, ready)
        wait_in(self.stream, ready)
        return within(self.stream)

    @contextmanager
    def _with_sources(
        self, devices: Sequence[torch.device], tensors: Sequence[torch.Tensor], ready: Sequence[torch.Event]
    ) -> Iterator[None]:
        """The same where torch copies from some of the other devices: in streams of the sources, which keep tensors."""
        with ExitStack() as entered:
            for stream in map(self.copies.stream, devices):
                if stream is not None:
                    read_in(stream, tensors, ready)
                    entered.enter_context(stream)
            wait_in(self.stream, ready)
            entered.enter_context(within(self.stream))
            yield

    def reset(self) -> None:
        """Restore the initial values of the state.  Must not be called while the stage runs."""
        with torch.no_grad():
            for program in self.programs:
                for name, buffer in program.state.items():
                    if name in self.first_state:
                        buffer.copy_(self.first_state[name])
                    else:
                        buffer.zero_()

    def _detached(self, sent: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Copies of tensors that are views of the state, which the next batch changes while others still read them."""
        held = self._state_memory
        return tuple(t.clone() if t.untyped_storage().data_ptr() in held else t for t in sent)

    @cached_property
    def _state_memory(self) -> frozenset[int]:
        """The addresses of the memory of the state, which is changed in place: to look for them takes a step's time."""
        buffers = (buffer for program in self.programs for buffer in program.state.values())
        return frozenset(buffer.untyped_storage().data_ptr() for buffer in buffers)
