"""Whether the process that started this one is still there.  Imported before anything that takes time."""

from __future__ import annotations

import os

_known = os.getppid()


def is_gone() -> bool:
    return os.getppid() != _known


def _remember() -> None:
    global _known
    _known = os.getppid()


os.register_at_fork(after_in_child=_remember)
