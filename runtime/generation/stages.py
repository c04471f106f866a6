"""The stages, as the thread that continues texts sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch

from runtime.call.programs import Programs
from runtime.device.kinds import kind_of
from runtime.device.streams import made_by_now
from runtime.engine.engine import Engine
from runtime.engine.message import Values
from runtime.errors import StageError
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.step_inputs import MADE_BY_SCHEDULER, StepTensors
from runtime.options import PREFILL_SHARE

Begun = StepOutputs | Future[StepOutputs]  # a step that the stages have begun, or that they will
Submit = Callable[[Mapping[str, torch.Tensor], Sequence[torch.Event]], Begun]

CHECKED = 256  # shapes of batches that are not checked again
_Shapes = tuple[tuple[str, ...], tuple[torch.Size, ...]]  # by their names


@dataclass(frozen=True)
class _Known:
    """A batch, with the names of its tensors in place of these."""

    sizes: Mapping[str, int]
    program: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class StepSubmission:
    """Starts a step of a decoder, whose tensors exist after the events `ready`."""

    engine: Engine
    programs: Programs
    processes: object = None  # those that run stages: they end with the last that knows them, and not amid a text
    _known: dict[_Shapes, _Known] = field(default_factory=dict)

    def __call__(self, tensors: Mapping[str, torch.Tensor], ready: Sequence[torch.Event]) -> Begun:
        """A future unless stages launch graphs at once.  No tensor may ever change."""
        self.engine.require_open()
        batch = self._bound(tensors, tuple(ready))
        named = self.programs.program_of(batch).named

        def outputs(made: Values) -> StepOutputs:
            return StepOutputs(**named(made.tensors), ready=made.ready)

        try:
            made = self.engine.launch(batch)
        except StageError as e:
            failed: Future[StepOutputs] = Future()
            failed.set_exception(e)
            return failed
        if made is not None:
            return outputs(made)
        batch = self.programs.laid_out(batch, ready)
        return self.engine.send(batch, output_device=self.engine.home, early=outputs)

    def _bound(self, tensors: Mapping[str, torch.Tensor], ready: tuple[torch.Event, ...]) -> Values:
        """The batch of tensors by their names; what a scheduler makes is checked once for the shapes that it has."""
        if not tensors.keys() <= MADE_BY_SCHEDULER:
            return replace(self.programs.bind_named(tensors), ready=(*made_by_now([*tensors.values()]), *ready))
        shapes = tuple(tensors), tuple([tensor.shape for tensor in tensors.values()])
        if (known := self._known.get(shapes)) is None:
            batch = self.programs.bind_named(tensors)
            names = [tensor.name for tensor in self.programs.program_of(batch).entry.inputs]
            if len(self._known) == CHECKED:
                self._known.clear()
            known = self._known[shapes] = _Known(batch.sizes, batch.program, tuple(names))
        pack = tensors.pack if isinstance(tensors, StepTensors) else None
        return Values(tuple([tensors[name] for name in known.names]), known.sizes, ready, known.program, pack=pack)


@dataclass(frozen=True)
class GeneratingStages:
    """The stages of a decoder."""

    submit: Submit  # starts a step of tensors that exist after events; devices may still compute its outputs
    at_once: int  # the steps that they compute at once
    pads: bool = False  # whether steps are padded to few shapes, which CUDA graphs are recorded for
    runs_ahead: bool = False  # whether futures are done before devices have computed a step
    prefill_share: float = PREFILL_SHARE  # see `Pipeline.load`
    require_open: Callable[[], None] = lambda: None  # raises PipelineClosed once they are closed
    packs: bool = False  # whether this process launches the graphs, into which one copy brings what was made together

    @classmethod
    def on(
        cls, devices: Sequence[torch.device], processes: int, submit: StepSubmission, prefill_share: float
    ) -> GeneratingStages:
        """Those on the `devices`, one for each stage, in as many `processes`; 0: on threads of this one."""
        at_once, apart = processes or len(set(devices)), processes > 0
        pads = any(kind_of(device).graph for device in devices)
        runs_ahead = pads and (not apart or submit.engine.home is not None)
        return cls(submit, at_once, pads, runs_ahead, prefill_share, submit.engine.require_open, pads and not apart)
