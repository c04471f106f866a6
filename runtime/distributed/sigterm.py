"""Delays SIGTERM by 5 s, so that the process that knows the cause can report it before torchrun ends it."""

from __future__ import annotations

import os
import signal
from threading import current_thread, main_thread

DELAY = 5.0  # seconds from SIGTERM to the end


def delay() -> None:
    """Delay SIGTERM in this process, unless the user has a handler, or this is not the main thread."""
    if current_thread() is main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: object) -> None:
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, DELAY)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
