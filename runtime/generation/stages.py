"""The stages, as the thread that continues texts sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from runtime.device.kinds import kind_of
from runtime.generation.outputs import StepOutputs

Submit = Callable[[Mapping[str, torch.Tensor], Sequence[torch.Event]], Future[StepOutputs]]


@dataclass(frozen=True)
class GeneratingStages:
    """The stages of a decoder."""

    submit: Submit  # starts a step of tensors that exist after events; the future holds outputs that may not yet
    at_once: int  # the steps that they compute at once
    pads: bool = False  # whether steps are padded to few shapes, which CUDA graphs are recorded for
    runs_ahead: bool = False  # whether futures are done before devices have computed a step
    prefill_share: float = 0.5  # see `Pipeline.load`
    require_open: Callable[[], None] = lambda: None  # raises PipelineClosed once they are closed

    @classmethod
    def on(
        cls,
        devices: Sequence[torch.device],
        apart: bool,
        submit: Submit,
        prefill_share: float,
        require_open: Callable[[], None],
    ) -> GeneratingStages:
        """Those on the `devices`, one for each stage; `apart`: whether each is in a process of its own."""
        at_once = len(devices) if apart else len(set(devices))
        pads = any(kind_of(device).graph for device in devices)
        return cls(submit, at_once, pads, pads and not apart, prefill_share, require_open)
