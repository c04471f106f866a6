"""What a stage can be made into so that it runs faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from runtime.errors import DeviceError
from runtime.stage.cuda_graphs import Recorder
from runtime.stage.stage import LoadedStage, Sizes, sizes_of


@dataclass(frozen=True)
class Speed:
    """What is asked for all stages of a pipeline."""

    compile: bool = False  # by torch.compile: fewer and faster kernels
    cuda_graphs: bool = False  # one launch for all kernels of a stage

    def apply(self, stage: LoadedStage) -> LoadedStage:
        """Raises DeviceError where the device of the stage knows no such thing."""
        if self.cuda_graphs and stage.device.type != "cuda":
            raise DeviceError(
                f"CUDA graphs need CUDA devices, and stage {stage.index} is on {stage.device}; "
                "run the pipeline without them"
            )
        if self.compile:
            compiled = Compiled(stage.call)
            stage = replace(stage, call=compiled, knows=compiled.knows)
        if self.cuda_graphs:
            state = [stage.module.get_buffer(name) for name in stage.first_state]
            recorder = Recorder(stage.call, state, stage.device)
            stage = replace(stage, call=recorder, knows=recorder.knows)
        return stage


AS_IT_IS = Speed()


class Compiled:
    """Stands for a stage's module.  A class of layers that repeats is compiled once: stage files mark them so."""

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = torch.compile(call)
        self._seen: set[Sizes] = set()

    def knows(self, sizes: Sizes) -> bool:
        """Whether it has run for them: then nothing is left to compile."""
        return sizes in self._seen

    def __call__(self, *tensors: torch.Tensor, **sizes: int) -> object:
        """Raises RuntimeError where the module cannot be compiled."""
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import

        try:
            made = self._call(*tensors, **sizes)
        except TorchDynamoException as e:
            raise RuntimeError(f"it cannot be compiled; run it without compile: {e}") from e
        self._seen.add(sizes_of(tensors, sizes))
        return made
