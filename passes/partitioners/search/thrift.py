"""A cut of equal bottleneck with less total transfer.

A second run of the dynamic program over prefixes, along the order of the cut: it minimises the sum of transfers over
stages whose load is at most the bottleneck already reached. The cut itself is one of its choices.
"""

from __future__ import annotations

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.evaluation import loads, pipeline_order
from passes.partitioners.search.chain import Price, cheapest
from passes.partitioners.search.first_cut import Cut, judged
from passes.partitioners.search.lattice import Lattice
from passes.partitioners.search.seats import Seat, seats
from passes.partitioners.search.sweep import Intervals, Sweep
from passes.partitioners.units import Core

SAME = 1e-12  # relative


def thriftier(core: Core, cut: Cut, deadline: Deadline) -> Cut:
    """A cut of the same value with less total transfer, or the cut itself."""
    problem = core.problem
    moved, limit = total_transfer(core, cut), cut.value * (1 + SAME)
    if deadline.passed() or not moved:
        return cut
    order, devices = along_stages(core, cut)
    other = cheapest_cut(core, Sweep(core, order), devices, _transfer(problem.overlap, limit), limit)
    if other and other.value <= limit and total_transfer(core, other) < moved * (1 - SAME):
        return other
    return cut


def along_stages(core: Core, cut: Cut) -> tuple[np.ndarray, tuple[int, ...]]:
    """The units in the order of the cut's stages, and the devices in that order, those without a stage last."""
    used, every = pipeline_order(core.problem, cut.stages), range(len(core.problem.devices))
    place = np.empty(core.n, dtype=np.int64)
    place[core.unit_of] = [used.index(stage) for stage in cut.stages]
    return np.argsort(place, kind="stable"), (*used, *(number for number in every if number not in used))


def total_transfer(core: Core, cut: Cut) -> float:
    """Seconds that all devices spend on receiving and sending."""
    return sum(load.receive + load.send for load in loads(core.problem, cut.stages))


def cheapest_cut(
    core: Core,
    path: Sweep | Lattice,
    devices: tuple[int, ...],
    price: Price,
    limit: float,
    among_equals: Price | None = None,
    rest: np.ndarray | None = None,
) -> Cut | None:
    """The cut along a path of least summed `price`, whose stages compute for at most `limit` seconds.

    Of several such cuts it is one whose largest `among_equals` is least.  `rest` is the least that is still to be
    paid, as `cheapest` takes it.
    """
    places, leave_empty = seats(core.problem, devices), not core.problem.every_device
    chain = cheapest(path, places, price, leave_empty=leave_empty, reach=limit, among_equals=among_equals, rest=rest)
    return None if np.isinf(chain.value()) else judged(core, path.laid_out(chain.ends(path.n), devices))


def _transfer(overlap: bool, limit: float) -> Price:
    """The seconds that a stage transfers; inf if its load is over the limit."""

    def price(seat: Seat, stages: Intervals) -> np.ndarray:
        return np.where(seat.load(stages, overlap) <= limit, sum(seat.transfers(stages)), np.inf)

    return price
