"""Errors of a problem, of a split, and of a problem without a split."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidProblem(ValueError):
    """A problem that contradicts itself, such as by an index out of range; the message says where."""


class InvalidSplit(ValueError):
    """Stages that break a rule of the problem; the message names the node, the group or the device."""


@dataclass
class Infeasible(Exception):
    """No split obeys the problem.

    `device` is the device that is short (-1: none in particular), `needed` and `available` its bytes.
    `largest_part` are the nodes of the largest part that cannot be divided and `largest_part_bytes`
    what it keeps. `smallest_memory` is the least memory that suffices if every device has it, and
    `smallest_devices` the least number of devices like the roomiest one that suffice (0: none does).
    Not `proven`: some split might fit, but none was found.
    """

    reason: str
    device: int = -1
    needed: float = 0.0
    available: float = 0.0
    largest_part: tuple[int, ...] = ()
    largest_part_bytes: float = 0.0
    smallest_memory: float = 0.0
    smallest_devices: int = 0
    proven: bool = True

    def __str__(self) -> str:
        if self.device < 0:
            return self.reason
        devices = f"{self.smallest_devices} such devices" if self.smallest_devices else "no number of such devices"
        return (
            f"{self.reason}: device {self.device} needs {readable(self.needed)} of its "
            f"{readable(self.available)}; the largest part is {readable(self.largest_part_bytes)} "
            f"({named(self.largest_part)}). It fits if every device has {readable(self.smallest_memory)}, "
            f"or on {devices}."
        )


def named(nodes: tuple[int, ...]) -> str:
    """(3, 4) -> 'nodes 3, 4'."""
    if len(nodes) == 1:
        return f"node {nodes[0]}"
    return "nodes " + ", ".join(map(str, nodes[:4])) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")


def readable(size: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
