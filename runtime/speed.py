"""What a stage can be made into so that it runs faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from runtime.errors import DeviceError
from runtime.graphs import Recorder
from runtime.stage import LoadedStage


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
        call = _compiled(stage.call) if self.compile else stage.call
        if self.cuda_graphs:
            state = [stage.module.get_buffer(name) for name in stage.first_state]
            call = Recorder(call, state, stage.device)
        return replace(stage, call=call, prepared=None if self == AS_IT_IS else set())


AS_IT_IS = Speed()


def _compiled(call: Callable[..., object]) -> Callable[..., object]:
    """A class of layers that repeats is compiled once: stage files mark them so."""
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    compiled = torch.compile(call)

    def run(*tensors: torch.Tensor, **sizes: int) -> object:
        try:
            return compiled(*tensors, **sizes)
        except TorchDynamoException as e:
            raise RuntimeError(f"it cannot be compiled; run it without compile: {e}") from e

    return run
