"""Measured times of nodes, and the roofline on devices where they were not measured."""

from __future__ import annotations

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device
from passes.cost_models.roofline import Roofline


class Profiled:
    """The measured times of a graph whose costs were profiled."""

    def time(self, node: Node, cost: Cost, device: Device) -> Time:
        """The measured time, scaled to other sizes in proportion to the roofline's."""
        predicted = Roofline().time(node, cost, device)
        if not node.measured:
            return predicted
        found = next((m for m in node.measured if m.device == device.kind), None)
        if found is None:
            return predicted
        then = Roofline().time(node, found.cost, device).device
        return Time(found.time.device * (predicted.device / then if then else 1.0), found.time.host)
