"""Errors while an artifact is loaded and run: one class per culprit."""

from __future__ import annotations


class InputError(ValueError):
    """The arguments of a call do not fit what the model was captured for.  Raised before anything runs.

    `fault` is the message without the advice at its end.
    """

    def __init__(self, fault: str, advice: str = "") -> None:
        super().__init__(f"{fault}; {advice}" if advice else fault)
        self.fault = fault


def demand(fits: bool, name: str, value: object, what: str) -> None:
    """Raise InputError for the value of an option that does not fit what it must be."""
    if not fits:
        raise InputError(f"{name} is {value!r}; it must be {what}")


class DeviceError(ValueError):
    """The devices that were asked for are none, too many, or not here."""


class DistributedError(RuntimeError):
    """The processes of a job do not find each other, or cannot connect."""


class PipelineClosed(RuntimeError):
    """The pipeline was closed before the batch was done."""


def text_of(error: BaseException) -> str:
    """The text of an error, also of one whose own code for it raises."""
    try:
        return str(error)
    except Exception as e:
        return f"it has no text, as {type(e).__name__} is raised for it"


class StageError(RuntimeError):
    """A stage raised.  `stage` is its number, `device` its device and `__cause__` the exception."""

    def __init__(self, stage: int, device: str, cause: BaseException) -> None:
        super().__init__(f"stage {stage} ({device}) raised {type(cause).__name__}: {text_of(cause)}")
        self.stage = stage
        self.device = device
        self.__cause__ = cause


class StageLost(StageError):
    """A process that ran stages was lost, or given up: it ended, gave no sign of life, or a stage in it hung."""


class ManifestError(Exception):
    """The folder is not an artifact, or not one that this version can run."""
