"""Measured operators: what a node took on such a device, and the roofline where it did not run."""

from __future__ import annotations

from ir.cost import Cost, Time
from ir.graph import Node
from ir.machine.cluster import Device
from passes.cost_models.roofline import Roofline


class Profiled:
    def time(self, node: Node, cost: Cost, device: Device) -> Time:
        """At other sizes than the measured ones, the time grows as the roofline's."""
        predicted = Roofline().time(node, cost, device)
        found = next((m for m in node.measured if m.device == device.kind), None)
        if found is None:
            return predicted
        then = Roofline().time(node, found.cost, device).device
        return Time(found.time.device * (predicted.device / then if then else 1.0), found.time.host)
