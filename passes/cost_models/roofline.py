"""The roofline: the time of a kernel is its launch plus the slowest of arithmetic, traffic and element access.

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.  The fixed time of a contraction beside its rate (`Device.fill`) is from Hockney,
Jesshope: "Parallel Computers", 1981, section 1.3.
"""

from __future__ import annotations

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device


class Roofline:
    """Times from the table of a device."""

    def time(self, node: Node, cost: Cost, device: Device) -> Time:
        """Seconds from flops, bytes, elements and launches; 0 for a view."""
        flops, nbytes = float(cost.flops), float(cost.bytes)
        unit, dtype = cost.arithmetic
        rate = device.rate(unit, str(dtype).removeprefix("torch."))
        arithmetic = flops / rate + device.fill if flops else 0.0
        work = max(arithmetic, nbytes / device.speed(nbytes), float(cost.elements) / device.elements)
        return Time(cost.launches * device.launch + work, cost.launches * device.dispatch)
