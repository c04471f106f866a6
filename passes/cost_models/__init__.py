"""From what a node asks of any machine to seconds on a device: one file a model."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device


class CostModel(Protocol):
    """Predicts how long a device takes for a node, whose cost at the sizes in question is in plain numbers."""

    def time(self, node: Node, cost: Cost, device: Device) -> Time: ...


class CostSource(str, Enum):
    """Where the seconds of a node come from."""

    roofline = "roofline"  # from its cost and the table of the device
    profiled = "profiled"  # from running its operator on the device
