"""The roofline: a kernel takes its start, and then as long as the slowest of arithmetic and memory traffic.

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.  That a contraction takes a time of its own besides, whatever its size, is from
Hockney, Jesshope: "Parallel Computers", 1981, section 1.3.
"""

from __future__ import annotations

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device


class Roofline:
    def time(self, node: Node, cost: Cost, device: Device) -> Time:
        """From flops, bytes and launches alone; a view takes no time."""
        flops, nbytes = float(cost.flops), float(cost.bytes)
        unit, dtype = cost.arithmetic
        rate = device.rate(unit, str(dtype).removeprefix("torch."))
        arithmetic = flops / rate + device.fill if flops else 0.0
        work = max(arithmetic, nbytes / device.speed(nbytes), float(cost.elements) / device.elements)
        return Time(cost.launches * device.launch + work, cost.launches * device.dispatch)
