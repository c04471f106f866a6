"""Warnings at the line of the user's code that called the runtime."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_OURS = f"{Path(__file__).resolve().parent}/"


def warn_caller(message: str) -> None:
    """Issue a UserWarning at the innermost line that is not the runtime's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
