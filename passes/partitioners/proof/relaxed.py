"""The relaxed problem: a simpler one whose optimum is a lower bound of the full one.

Devices that cost the same form a class; all values at a device of a class take its fastest link, in
either direction; devices may stay empty; the peaks of activations (which depend on the order inside a stage)
are left out, and with `memory` off so are weights. Every split of the problem is one of this relaxation
that costs no more, so a lower bound here is one there; and where links are alike and memory is plentiful
the two are the same problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np

from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.parts import Link
from passes.partitioners.search.seats import alike
from passes.partitioners.units import BYTES, COUNT, Core

Stages = tuple[tuple[int, np.ndarray], ...]  # for each stage, its class of device and [units] members


@dataclass(frozen=True)
class DeviceClass:
    """Devices (by number) with equal costs."""

    devices: tuple[int, ...]
    kind: int
    memory: float
    link: Link
    free_transfers: bool
    node_by_node: bool


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Units and classes of devices. `chain` are the classes in pipeline order, if that is fixed.

    With `overlap`, transfers overlap compute.
    """

    core: Core
    classes: tuple[DeviceClass, ...]
    chain: tuple[int, ...]
    overlap: bool

    @cached_property
    def time(self) -> np.ndarray:
        """[classes, units] seconds."""
        return self.core.time[[c.kind for c in self.classes]]

    @cached_property
    def cost(self) -> np.ndarray:
        """[classes, values] seconds to send or to receive each value."""
        count, size = self.core.values.sizes[:, COUNT], self.core.values.sizes[:, BYTES]
        return np.array(
            [
                np.zeros(len(size)) if c.free_transfers else c.link.latency * count + size / c.link.bandwidth
                for c in self.classes
            ]
        ).reshape(len(self.classes), len(size))

    @cached_property
    def made(self) -> np.ndarray:
        """[classes, units] seconds to send all that a unit makes."""
        made = np.zeros((len(self.classes), self.core.n))
        np.add.at(made.T, self.core.producer, self.cost.T)
        return made

    @cached_property
    def memory_matters(self) -> bool:
        """Whether some device cannot hold everything."""
        needed = self.core.keeps.sum() + self.core.weights.sizes.sum()
        return any(c.memory < needed for c in self.classes)

    def holds(self, stages: Stages) -> bool:
        """Whether each stage fits the memory of its device, by what its units keep and the weights that they read."""
        return all(self._kept_by(units) <= self.classes[kind].memory for kind, units in stages)

    def _kept_by(self, units: np.ndarray) -> float:
        """Bytes that a stage keeps; `units` [units] says which it has."""
        weights = self.core.weights
        read = np.unique(weights.owner[units[weights.members]])
        return float(self.core.keeps[units].sum() + weights.sizes[read, 0].sum())

    def on(self, core: Core) -> Relaxed:
        """The same devices for other units."""
        return replace(self, core=core)


def relaxed(core: Core, *, memory: bool = True) -> Relaxed:
    """The relaxation of a core's problem, with or without limits of memory."""
    problem = core.problem
    if problem.fixed_order:
        groups: Sequence[tuple[int, ...]] = [(number,) for number in range(len(problem.devices))]
    else:
        groups = alike(problem)
    classes = tuple(_device_class(problem, devices, memory) for devices in groups)
    return Relaxed(core, classes, tuple(range(len(classes))) if problem.fixed_order else (), problem.overlap)


def _device_class(problem: Problem, devices: tuple[int, ...], memory: bool) -> DeviceClass:
    device = problem.devices[devices[0]]
    return DeviceClass(
        devices=devices,
        kind=device.kind,
        memory=device.memory if memory else inf,
        link=_fastest(problem, devices[0]),
        free_transfers=device.free_transfers,
        node_by_node=device.node_by_node,
    )


def _fastest(problem: Problem, device: int) -> Link:
    """A link no slower than any that leaves or reaches the device."""
    others = [other for other in range(len(problem.devices)) if other != device]
    links = [problem.between(*pair) for other in others for pair in ((device, other), (other, device))]
    if not links:
        return problem.link
    return Link(max(link.bandwidth for link in links), min(link.latency for link in links))
