"""From what a node asks of any machine to seconds on a device: one file a model."""

from __future__ import annotations

from typing import Protocol

from ir.cluster import Device
from ir.graph import Cost


class CostModel(Protocol):
    """Predicts how long a device takes for a cost whose sizes are numbers."""

    def seconds(self, cost: Cost, device: Device) -> float: ...
