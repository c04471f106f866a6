"""Cost models: from what a node asks of any machine to seconds on a device.

In the order in which a cost meets them:

    flops, traffic    flops and bytes of operators, by their names
    stopwatch    the time of a call on a device, with caches and clocks as in the middle of a model
    profiling    each distinct operator of a graph timed on the devices (--cost profiled)
    roofline     seconds from flops, bytes and kernel launches
    profiled     seconds from those measurements, and the roofline where there are none
    dequantizing      cost of a weight that is computed from codes and scales
    higher_order      costs of cond, loops and flex_attention from those of the functions that they run
    registered_flops  formulas of flops that were registered for operators from outside torch
    kernels      costs of nodes that are one kernel
    steps        time of a decoder's steps beside their operators
    predictions  seconds and bytes of a graph's nodes and transfers at some sizes, and on average over a workload
"""

from __future__ import annotations

from typing import Protocol

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device


class CostModel(Protocol):
    """A prediction of the time of a node on a device; `cost` is that of the node, in plain numbers."""

    def time(self, node: Node, cost: Cost, device: Device) -> Time: ...
