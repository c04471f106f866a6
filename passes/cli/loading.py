"""Late imports of what takes seconds to import (torch) or may not be installed (the compiler's libraries)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ir.errors import SourceError

_OURS = ("ir", "passes", "codegen", "runtime")


def load(module: str, what: str) -> Any:
    """Import one of our modules for `what`.

    Raises SourceError that says how to install what is missing.
    """
    try:
        with ended_by_interrupt():
            return import_module(module)
    except ModuleNotFoundError as e:
        missing = (e.name or "").partition(".")[0]
        if missing in _OURS:
            raise
        raise SourceError(f"{what} needs {missing}, which is not installed; pip install 'stagecut[compile]'") from e


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """While this lasts an interrupt ends the process at once.

    Libraries that are being imported lose the exception, and nothing is open yet that would have to be closed.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # in a shell's background job
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(*_: object) -> None:
    sys.stderr.write("interrupted; nothing was written\n")
    sys.stderr.flush()
    os._exit(130)
