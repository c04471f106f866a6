"""Ending the processes of a job: in order and without a message, or at once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


class ReportedByRank0(SystemExit):
    """Ends this process with status 1 and without a message, since rank 0 reports the cause."""

    def __init__(self) -> None:
        super().__init__(1)


def kill(pid: int) -> None:
    """End this process, or another of this host, at once: blocks are not left, threads are not joined."""
    if pid == os.getpid():
        os._exit(1)
    with suppress(OSError):  # it has ended already
        os.kill(pid, signal.SIGKILL)


def kill_group(leader: int) -> None:
    """End a process that began a group of its own, and what it started in the group, at once."""
    kill_rest_of_group(leader)
    kill(leader)  # it may not have begun the group yet


def kill_rest_of_group(leader: int) -> None:
    """End what a process, which may have ended, started in the group that it began."""
    with suppress(OSError):  # there is nothing
        os.killpg(leader, signal.SIGKILL)
