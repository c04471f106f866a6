"""The parts of a problem: what runs (nodes), what flows (values), what stays (weights), and on what."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the program.

    `time[k]` is its seconds on a device of kind k, inf where it cannot run. `bytes` is what it keeps on
    its device. A `cheap` node may be copied for free into every stage that reads it: its values never
    travel, and its time counts nowhere.
    """

    time: tuple[float, ...]
    bytes: float = 0.0
    cheap: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """What flows from one node to others: `bytes` on the wire, `held` bytes of memory (0 for a view)."""

    producer: int
    consumers: tuple[int, ...]
    bytes: float
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes that stand once on every device that has one of their readers."""

    bytes: float
    readers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` selects the entry of `Node.time`. On one with `free_transfers`, only compute counts."""

    memory: float = inf
    kind: int = 0
    free_transfers: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """The way from one device to another: a value takes latency + bytes / bandwidth seconds."""

    bandwidth: float = inf
    latency: float = 0.0

    def seconds(self, size: float) -> float:
        return self.latency + size / self.bandwidth
