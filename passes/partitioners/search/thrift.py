"""A cut of equal bottleneck with less total transfer.

A second run of the dynamic program over prefixes, along the order of the cut: it minimises the sum of transfers over
stages whose load is at most the bottleneck already reached. The cut itself is one of its choices.
"""

from __future__ import annotations

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.evaluation import loads, pipeline_order
from passes.partitioners.search.chain import cheapest
from passes.partitioners.search.first_cut import Cut, judged, laid_out
from passes.partitioners.search.seats import Seat, seats
from passes.partitioners.search.sweep import IntervalRow, Sweep
from passes.partitioners.units import Core

SAME = 1e-12  # relative


def thriftier(core: Core, cut: Cut, deadline: Deadline) -> Cut:
    """A cut of the same value with less total transfer, or the cut itself."""
    problem = core.problem
    used = pipeline_order(problem, cut.stages)
    devices = (*used, *(number for number in range(len(problem.devices)) if number not in used))
    moved = total_transfer(core, cut)
    if deadline.passed() or not moved:
        return cut
    other = _along(core, along_stages(core, cut, used), devices, cut.value * (1 + SAME))
    if other and other.value <= cut.value * (1 + SAME) and total_transfer(core, other) < moved * (1 - SAME):
        return other
    return cut


def along_stages(core: Core, cut: Cut, used: list[int]) -> np.ndarray:
    """The units in the order of the cut's stages."""
    place = np.empty(core.n, dtype=np.int64)
    place[core.unit_of] = [used.index(stage) for stage in cut.stages]
    return np.argsort(place, kind="stable")


def total_transfer(core: Core, cut: Cut) -> float:
    """Seconds that all devices spend on receiving and sending."""
    return sum(load.receive + load.send for load in loads(core.problem, cut.stages))


def _along(core: Core, order: np.ndarray, devices: tuple[int, ...], limit: float) -> Cut | None:
    overlap = core.problem.overlap

    def price(seat: Seat, row: IntervalRow) -> np.ndarray:
        return np.where(seat.load(row, overlap) <= limit, sum(seat.transfers(row)), np.inf)

    sweep, places = Sweep(core, order), seats(core.problem, devices)
    chain = cheapest(sweep, places, price, leave_empty=not core.problem.every_device, reach=limit)
    if np.isinf(chain.value()):
        return None
    return judged(core, laid_out(order, chain.ends(core.n), devices))
