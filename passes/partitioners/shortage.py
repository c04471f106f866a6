"""The error where no split fits: which device is short of memory, and how much memory or how many devices suffice.

The memory of a stage grows with the stage. So in program order, filling one device after the other up to a given
memory uses the fewest devices of that memory; and bisection finds the least memory for which there are enough
devices. (Peaks of activations are bounded from above in program order, so a size that is reported to suffice does.)
"""

from __future__ import annotations

import numpy as np

from passes.partitioners.problem.errors import Infeasible
from passes.partitioners.search.sweep import Sweep
from passes.partitioners.units import Core

BISECTIONS = 30


def shortage(core: Core, *, proven: bool) -> Infeasible:
    """The error for a core without a split that fits; `proven` if there certainly is none."""
    problem = core.problem
    devices = problem.devices
    sweep = Sweep(core, np.arange(core.n))
    memory, stages = _least_memory(sweep, len(devices))
    parts = sweep.alone()
    largest = int(np.argmax(parts))
    by_size = sorted(range(len(devices)), key=lambda number: devices[number].memory)
    needs = dict(zip(reversed(by_size), sorted(stages, reverse=True), strict=False))
    device = max(needs, key=lambda number: needs[number] - devices[number].memory)
    if needs[device] <= devices[device].memory:
        if proven:
            return Infeasible("memory suffices, but no order of the devices lets each run its part")
        return Infeasible("memory suffices, but no split was found in which each device can run its part", proven=False)
    roomiest = devices[by_size[-1]].memory
    fewest = len(sweep.filled(roomiest))
    return Infeasible(
        reason="no split fits the memory of the devices" if proven else "no split was found that fits the memory",
        device=device,
        needed=needs[device],
        available=devices[device].memory,
        largest_part=tuple(problem.names[node] for node in core.nodes[largest]),
        largest_part_bytes=float(parts[largest]),
        smallest_memory=memory,
        smallest_devices=fewest,
        proven=proven,
    )


def _least_memory(sweep: Sweep, n_devices: int) -> tuple[float, list[float]]:
    """The least memory with which `n_devices` hold all units of an order, and the bytes that each then holds."""
    low, high = float(sweep.alone().max()), sweep.filled(np.inf)[0]
    best = sweep.filled(low)
    if 0 < len(best) <= n_devices:
        return low, best
    best = [high]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        filled = sweep.filled(middle)
        if len(filled) <= n_devices:
            high, best = max(filled), filled
        else:
            low = middle
    return high, best
