"""Time of a decoder's steps beside their operators, on devices with kernels for few rows and attention over pages.

The numbers are of one H200 with torch 2.11; docs/benchmarks.md has what they were measured in.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ir.graph import Call, Node
from ir.machine.cluster import Device
from ir.operators.facts import aten_name
from ir.paged.paged_operator import is_paged
from ir.quantized_linear.kernel_choice import MOST_ROWS
from ir.quantized_linear.linear_operator import is_quantized_linear
from ir.sizes import Dim

SPEED_OF_PAGES = 0.93  # with which attention reads pages, beside copying
WAITING = 3e-6  # seconds in which attention waits for which pages to read, and for parts of them to be joined


def seconds_beside(node: Node, number: Callable[[Dim], float], nbytes: float, device: Device) -> float:
    """Seconds of the device for one more kernel, which adds up parts, and for pages that lie anywhere.

    `number`: that of a size; `nbytes`: the traffic of the node.
    """
    if not isinstance(node, Call):
        return 0.0
    if is_paged(node):
        slower = nbytes / device.speed(nbytes) * (1 / SPEED_OF_PAGES - 1)
        return slower + WAITING + device.launch if number(node.arguments["query"].type.shape[2]) == 1 else 0.0
    if is_quantized_linear(node) or aten_name(node.op) == "linear":
        rows = prod(number(dim) for dim in node.operands[0].type.shape[:-1])
        return device.launch if 1 < rows <= MOST_ROWS else 0.0
    return 0.0
