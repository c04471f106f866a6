"""Torchrun stops all processes once one has ended; who knows why has a moment to say so."""

from __future__ import annotations

import os
import signal
from threading import current_thread, main_thread

MOMENT = 5.0  # seconds between being asked to end and ending


def allow() -> None:
    """Unless the user has a way of their own to end.  What is under way comes in that time or never."""
    if current_thread() is main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: object) -> None:
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, MOMENT)


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
