"""Messages between the caller and the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch

from runtime.device.packs import Pack
from runtime.engine.boxes import Boxes
from runtime.errors import StageError
from runtime.trace.traces import Trace


@dataclass(frozen=True)
class Values:
    """The tensors of one batch, its program and, from the caller, its sizes."""

    tensors: tuple[torch.Tensor, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)  # symbol -> value
    ready: tuple[torch.Event, ...] = ()  # events after which accelerators have made the tensors
    program: int = 0  # that runs the batch
    # By the indices of outputs of the model: the boxes that the caller wants of those that it does not want whole, ...
    wanted: Mapping[int, Boxes] = field(default_factory=dict)
    parts: Mapping[int, torch.Tensor] = field(default_factory=dict)  # ... and what a stage has taken for them
    pack: Pack | None = None  # where tensors of the caller lie, if that is one piece of memory

    @property
    def device(self) -> torch.device | None:
        """The device that all tensors share; None if they are on several, or if there are none."""
        devices = {tensor.device for tensor in self.tensors}
        return devices.pop() if len(devices) == 1 else None


class Launched(NamedTuple):
    """The outputs of a stage that launched a batch, and the events after which they exist."""

    tensors: tuple[torch.Tensor, ...]
    ready: tuple[torch.Event, ...]
    parts: Mapping[int, torch.Tensor] = MappingProxyType({})  # see Values


@dataclass(frozen=True)
class Failure:
    """Replaces the values of a batch that a stage could not compute, and travels on the same routes."""

    error: StageError


@dataclass(frozen=True)
class Reset:
    """Has every stage restore the initial values of its state, between the batches before and after it."""


@dataclass(frozen=True)
class FinishKernels:
    """Has every stage wait for the kernels that are compiled while it runs without them."""


@dataclass(frozen=True)
class SetTrace:
    """Has every stage add the batches that follow to a trace; None ends that."""

    trace: Trace | None


Control = Values | Reset | FinishKernels | SetTrace  # what the caller has stages do
Message = Control | Failure
