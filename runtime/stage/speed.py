"""Options that make a stage faster: torch.compile and CUDA graphs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from runtime.device.kinds import kind_of
from runtime.errors import DeviceError
from runtime.stage.cuda_graphs import GraphedStage, GraphMemory
from runtime.stage.stage import LoadedStage, ShapeKey, StageModule, shape_key


@dataclass(frozen=True)
class Speed:
    """Options for all stages of a pipeline."""

    compile: bool = False  # by torch.compile: fewer and faster kernels
    cuda_graphs: bool = False  # one launch for all kernels of a stage

    def apply(self, stage: LoadedStage) -> LoadedStage:
        """The stage with these options.  Raises DeviceError if its device does not support them."""
        if self.cuda_graphs and not kind_of(stage.device).graphs:
            raise DeviceError(
                f"CUDA graphs need CUDA devices, and stage {stage.index} is on {stage.device}; "
                "run the pipeline without them"
            )
        memory = GraphMemory.on(stage.device) if self.cuda_graphs else None
        return replace(stage, programs=tuple(self._faster(program, memory) for program in stage.programs))

    def _faster(self, stage: StageModule, memory: GraphMemory | None) -> StageModule:
        if self.compile:
            compiled = CompiledStage(stage.call)
            stage = replace(stage, call=compiled, is_prepared=compiled.is_prepared)
        if memory is not None:
            kept = [tensor for name, tensor in stage.state.items() if name not in stage.pools]
            graphed = GraphedStage(stage.call, kept, memory)
            stage = replace(stage, call=graphed, is_prepared=graphed.is_prepared)
        return stage


AS_IT_IS = Speed()


class CompiledStage:
    """A stage's module under torch.compile.  A class of repeated layers is compiled once: stage files mark them so."""

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = torch.compile(call)
        self._compiled: set[ShapeKey] = set()

    def is_prepared(self, key: ShapeKey) -> bool:
        """Whether it has run for these shapes, so that nothing is left to compile."""
        return key in self._compiled

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        """Raises RuntimeError if the module cannot be compiled."""
        key = shape_key(tensors, sizes)
        if key in self._compiled:
            return self._call(*tensors, **sizes)
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            with _warnings_shown():
                made = self._call(*tensors, **sizes)
        except TorchDynamoException as e:
            raise RuntimeError(f"it cannot be compiled; run it without compile: {e}") from e
        self._compiled.add(key)
        return made


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """The compiler's warnings, such as that float32 products could be faster, are shown and are never errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield
