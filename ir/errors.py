"""Errors that are raised on purpose, one class per culprit, and the text of all others."""

from __future__ import annotations

import textwrap

from ir.location import Located

_LONGEST = 400  # characters of another's error within a message of ours


def in_one_line(error: BaseException) -> str:
    """The class and the text of a library's error, for a message of ours: "ValueError: no such key".

    Lines and spaces in a row become one space each, a full stop at the end goes, and a text of more than 400 characters
    ends in "…".
    """
    text = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST, placeholder=" …")
    return text.rstrip(".: ")


class CompileError(Exception):
    """Base of every error raised on purpose.

    `node` is the culprit; the message then ends with the user's source line, and with the `excerpt` of the graph's
    dump around the node where `ir.analysis.verify.culprit_shown` has the graph at hand.
    """

    def __init__(self, message: str, node: Located | None = None) -> None:
        super().__init__(message if node is None else f"{message}\n  at {node.where}")
        self.node = node
        self.excerpt = ""

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.excerpt}" if self.excerpt else super().__str__()


class SourceError(CompileError):
    """A model file, checkpoint or cluster file that the user named, and that cannot be read."""


class CaptureError(CompileError):
    """A model that cannot be expressed in the IR."""


class PipelineError(CompileError):
    """Passes in an order that cannot run, or that are not known."""


class OptionError(CompileError):
    """An option whose value is not of its kind.  `option` is its name, and `fault` the rest of the message."""

    def __init__(self, option: str, fault: str) -> None:
        super().__init__(f"{option} {fault}")
        self.option = option
        self.fault = fault


class PlanError(CompileError):
    """A program that does not fit the machine it was planned for."""


class StateError(CompileError):
    """A model that keeps something from call to call that stages do not."""


class OutputError(CompileError):
    """An artifact that cannot be written where the user asked for it."""


class InternalError(CompileError):
    """A fault of ours, not of the input."""


class VerifyError(InternalError):
    """An invariant that a pass broke, or a cut program that computed something else."""
