"""The parts of a problem: nodes, the values that flow between them, weights, devices and links."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple, TypeAlias

HeldBytes: TypeAlias = float | tuple[float, ...]
"""Bytes of memory; where batches differ in size, those of each kind of batch, of which a device holds one at a time."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the program.

    `time[k]` are its seconds on a device of kind k, inf if it cannot run there. `bytes` are those it keeps on
    its device. A `cheap` node may be copied for free into every stage that reads it: its values never
    travel, and its time counts nowhere.
    """

    time: tuple[float, ...]
    bytes: float = 0.0
    cheap: bool = False
    name: str = ""


class Value(NamedTuple):
    """The result of a node that others read: `bytes` on the wire, `held` bytes of memory (0 for a view)."""

    producer: int
    consumers: tuple[int, ...]
    bytes: float
    held: HeldBytes = 0.0


@dataclass(frozen=True, slots=True)
class Remade:
    """The result of a copied node: every stage with one of its readers makes it anew, and holds it."""

    held: HeldBytes
    readers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes that every device with one of their readers holds once."""

    bytes: float
    readers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """A device. `kind` selects the entry of `Node.time`; with `free_transfers`, only compute counts.

    With `node_by_node` each of its nodes is a call of its own, and any number of them run at once: a host with cores to
    spare.
    """

    memory: float = inf
    kind: int = 0
    free_transfers: bool = False
    node_by_node: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link from one device to another: a value takes `latency + bytes / bandwidth` seconds."""

    bandwidth: float = inf
    latency: float = 0.0

    def seconds(self, size: float) -> float:
        return self.latency + size / self.bandwidth
