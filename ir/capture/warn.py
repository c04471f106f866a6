"""Warnings about a model, at the line of the user's code that asked for its capture."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_ROOT / folder}/" for folder in ("ir", "passes", "codegen", "runtime"))


_hearing: list[list[str]] = []


@contextmanager
def heard() -> Iterator[list[str]]:
    """The messages of all warnings that are given while this lasts, which are given all the same."""
    messages: list[str] = []
    _hearing.append(messages)
    try:
        yield messages
    finally:
        _hearing[:] = [others for others in _hearing if others is not messages]  # lists of the same words are equal


def warn(message: str) -> None:
    """Issue a UserWarning at the innermost line that is not this package's."""
    for messages in _hearing:
        messages.append(message)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
