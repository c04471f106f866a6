"""The roofline: a kernel takes its start, and then as long as the slower of arithmetic and memory traffic.

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

from ir.cluster import Device
from ir.graph import Cost


class Roofline:
    def seconds(self, cost: Cost, device: Device) -> float:
        """Seconds for a cost in plain numbers (flops, bytes, launches)."""
        work = max(float(cost.flops) / device.flops, float(cost.bytes) / device.bandwidth)
        return cost.launches * device.launch + work
