"""Processes that are stopped by a signal: they live, and will not answer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from runtime.distributed.exit import kill_group


@dataclass
class StoppedProcesses:
    """The processes that were stopped at the last look; one that is at two in a row is killed."""

    _before: set[int] = field(default_factory=set)

    def look(self, pids: Iterable[int]) -> None:
        stopped = {pid for pid in pids if _is_stopped(pid)}
        for pid in stopped & self._before:
            kill_group(pid)
        self._before = stopped


def children() -> set[int]:
    """The ids of the processes that this one has started; none where the system does not tell."""
    found = set[int]()
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # of a thread that has ended
            found |= {int(pid) for pid in path.read_text().split()}
    return found


def _is_stopped(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False
