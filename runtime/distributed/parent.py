"""Orphan detection: whether the parent process still runs.

`runtime/__init__.py` imports this before anything slow: a parent that ends meanwhile would go unnoticed.
"""

from __future__ import annotations

import os

_known = os.getppid()


def is_gone() -> bool:
    """Whether the process that started this one has ended."""
    return os.getppid() != _known


def _remember() -> None:
    global _known
    _known = os.getppid()


os.register_at_fork(after_in_child=_remember)
