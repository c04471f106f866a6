"""What goes wrong while an artifact runs: one class per culprit."""

from __future__ import annotations


class InputError(ValueError):
    """The arguments of a call are not what the model was captured for.  Raised before anything runs."""


class DeviceError(ValueError):
    """The devices asked for are not here, or too many."""


class DistributedError(RuntimeError):
    """The processes of a job do not come together."""


class PipelineClosed(RuntimeError):
    """The pipeline was closed before the batch was done."""


class StageError(RuntimeError):
    """A stage raised.  `stage` is its number, `device` its device and `__cause__` what it raised."""

    def __init__(self, stage: int, device: str, cause: BaseException) -> None:
        super().__init__(f"stage {stage} ({device}) raised {type(cause).__name__}: {cause}")
        self.stage = stage
        self.device = device
        self.__cause__ = cause
