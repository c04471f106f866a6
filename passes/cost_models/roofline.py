"""The roofline: the time of a kernel is its launch plus the slowest of arithmetic, traffic and element access.

Williams, Waterman, Patterson: "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.  The fixed time of a contraction beside its rate (`Device.fill`) is from Hockney,
Jesshope: "Parallel Computers", 1981, section 1.3.  Where two of the three take about as long, neither hides the other
quite, and the roof has no edge: a norm of the three that is near to the largest, as measured kernels are.
"""

from __future__ import annotations

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device

_EDGE = 4  # 3 to 5 fit convolutions and normalizations of ResNet-50 on an H200 about as well


class Roofline:
    """Times from the table of a device."""

    def time(self, node: Node, cost: Cost, device: Device) -> Time:
        """Seconds from flops, bytes, elements and launches; 0 for a view."""
        flops, nbytes = float(cost.flops), float(cost.bytes)
        unit, dtype = cost.arithmetic
        rate = device.rate(unit, str(dtype).removeprefix("torch."))
        arithmetic = flops / rate + device.fill if flops else 0.0
        work = _norm(arithmetic, nbytes / device.speed(nbytes), float(cost.elements) / device.elements)
        return Time(cost.launches * device.launch + work, cost.launches * device.dispatch)


def _norm(*seconds: float) -> float:
    """The `_EDGE`-norm: twice the same is 1.19 times it, a half beside a whole 1.015 times the whole."""
    longest = max(seconds)
    return longest * sum((each / longest) ** _EDGE for each in seconds) ** (1 / _EDGE) if longest else 0.0
