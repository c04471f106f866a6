"""What can go wrong, one class per culprit."""

from __future__ import annotations

from ir.location import Located


class CompileError(Exception):
    """Base of every error raised on purpose; a node adds the user's source line to the message."""

    def __init__(self, message: str, node: Located | None = None) -> None:
        super().__init__(message if node is None else f"{message}\n  at {node.where}")


class SourceError(CompileError):
    """What the user named cannot be read: a model file, a checkpoint, a cluster file."""


class CaptureError(CompileError):
    """The model cannot be expressed in the IR."""


class PipelineError(CompileError):
    """The passes are in an order that cannot run, or are not known."""


class PlanError(CompileError):
    """The program does not fit the machine it was planned for."""


class OutputError(CompileError):
    """The artifact cannot be written where the user asked for it."""


class InternalError(CompileError):
    """A fault of ours, not of the input."""


class VerifyError(InternalError):
    """A pass broke an invariant, or a cut program computed something else."""
