"""The plainest cut among those that are nearly as good as the best.

Its bottleneck is at most a limit; of all such cuts it has the least `Crossing`: it sends the fewest values, then parts
the fewest modules, then sends the fewest bytes; of those that are equal in these it has the least bottleneck. The
crossing is a sum over stages, so the dynamic program over prefixes that finds a cheap cut of one order finds a plain
one, with a price in which one value outweighs all modules, and one module all bytes. It is run along the orders that
found the best cut, or over all ideals where they are few; then no cut is plainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.crossing import crossing
from passes.partitioners.search.chain import Price
from passes.partitioners.search.first_cut import Cut
from passes.partitioners.search.lattice import Lattice, all_ideals
from passes.partitioners.search.orders import orders
from passes.partitioners.search.seats import Seat
from passes.partitioners.search.sweep import Intervals, Sweep
from passes.partitioners.search.thrift import along_stages, cheapest_cut
from passes.partitioners.sharing import Share, in_turn
from passes.partitioners.units import BYTES, COUNT, Core

FEW_IDEALS = 80
MANY_UNITS = 2_000  # from here on, three orders are tried


def plainest_cut(core: Core, cut: Cut, limit: float, deadline: Deadline, share: Share = in_turn) -> Cut:
    """The plainest cut of a value up to `limit` that is found, `cut` if none is plainer."""
    along, devices = along_stages(core, cut)
    price, best, least = _price(core, limit), cut, _key(core, cut)
    overlap = core.problem.overlap

    def along_path(path: np.ndarray | Lattice) -> Cut | None:
        if deadline.passed():
            return None
        along, rest = (path, None) if isinstance(path, Lattice) else (Sweep(core, path), _still_received(core, path))
        return cheapest_cut(core, along, devices, price, limit, lambda seat, stages: seat.load(stages, overlap), rest)

    for other in share(along_path, [*_paths(core, along)], len(core.problem.nodes)):
        if other and other.value <= limit and _key(core, other) < least:
            best, least = other, _key(core, other)
    return best


def _paths(core: Core, along: np.ndarray) -> Iterator[np.ndarray | Lattice]:
    """All ideals, or orders of the units."""
    ideals = all_ideals(core, FEW_IDEALS)
    if ideals is not None:
        yield Lattice(core, ideals)
    else:
        yield from (along, *islice(orders(core), 2 if core.n > MANY_UNITS else None))


def _still_received(core: Core, order: np.ndarray) -> np.ndarray:
    """[devices + 1, positions] the fewest values that are received behind a position, if so many stages lie before it.

    They are those made before it and read behind it and, for each stage there but the last one, one that it sends:
    where no device is left without a stage and each unit but the last makes something that is read behind it.
    """
    stages, position = len(core.problem.devices), np.empty(core.n, dtype=np.int64)
    position[order] = np.arange(core.n)
    made = position[core.producer]
    last = np.maximum.reduceat(position[core.values.members], core.values.starts[:-1])
    opens, count = np.zeros(core.n + 2), core.values.sizes[:, COUNT]
    np.add.at(opens, made + 1, count)
    np.add.at(opens, last + 1, -count)
    sends = np.bincount(made[last > made], minlength=core.n)[:-1].all() and core.problem.every_device
    return np.cumsum(opens)[: core.n + 1] + float(sends) * np.maximum(np.arange(stages, -1, -1) - 1, 0)[:, None]


def _price(core: Core, limit: float) -> Price:
    """The part of a stage in the crossing, as one number; inf if its load is over the limit."""
    problem = core.problem
    module = 0.5 / (1 + len(core.modules) * len(problem.devices))
    byte = 0.5 * module / (1 + core.values.sizes[:, BYTES].sum() * len(problem.devices))

    def price(seat: Seat, stages: Intervals) -> np.ndarray:
        plain = stages.received[COUNT] + module * stages.modules + byte * stages.received[BYTES]
        return np.where(seat.load(stages, problem.overlap) <= limit * (1 + 1e-12), plain, np.inf)

    return price


def _key(core: Core, cut: Cut) -> tuple[float, ...]:
    stage_of = dict(zip(core.problem.names, cut.stages, strict=True))
    return (*crossing(core.problem, stage_of), cut.value)
