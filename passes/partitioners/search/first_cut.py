"""A good cut and a lower bound at once: the best cut of several orders of the units, and of the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.errors import InvalidSplit
from passes.partitioners.problem.evaluation import evaluate
from passes.partitioners.problem.model import Problem
from passes.partitioners.problem.objective import Objective
from passes.partitioners.search.chain import bottleneck, cheapest
from passes.partitioners.search.orders import orders
from passes.partitioners.search.seats import Seat, seats, sequences
from passes.partitioners.search.sweep import Sweep
from passes.partitioners.sharing import Share, in_turn
from passes.partitioners.units import Core

MOST_SEQUENCES = 60
PRECISION = 1e-9  # relative: values that differ by less are the same


@dataclass(frozen=True)
class Cut:
    """The stage of each node, and the value of that split by `evaluate`."""

    stages: tuple[int, ...]
    value: float


def judged(core: Core, stage: np.ndarray) -> Cut | None:
    """The cut with `stage[unit]`, with its true value; None if it breaks a rule.

    It may break one, as searches estimate the peaks of activations and some bounds ignore them.
    """
    return valued(core.problem, stage[core.unit_of].tolist())


def valued(problem: Problem, stages: Sequence[int]) -> Cut | None:
    """The cut with `stages[node]`, with its value; None if it breaks a rule of the problem."""
    try:
        return Cut(tuple(stages), evaluate(problem, dict(zip(problem.names, stages, strict=True))))
    except InvalidSplit:
        return None


def first_cut(core: Core, deadline: Deadline, share: Share = in_turn) -> Cut | None:
    """The best cut of several orders on the devices as listed, or of the best order on permuted devices."""
    listed, *others = islice(sequences(core.problem), MOST_SEQUENCES)
    best, best_order = _best_along(core, listed, deadline, share)
    for devices in others:
        if best is not None and deadline.passed():
            return best
        below = best.value * (1 - PRECISION) if best else inf
        best = better(best, cut_along(core, best_order, devices, below))
    return best


def _best_along(core: Core, devices: Sequence[int], deadline: Deadline, share: Share) -> tuple[Cut | None, np.ndarray]:
    """The best cut of several orders, and its order; each but the first is searched for better ones alone."""
    least = inf

    def along(order: np.ndarray) -> Cut | None:
        nonlocal least
        if least < inf and deadline.passed():
            return None
        cut = cut_along(core, order, devices, least * (1 - PRECISION))
        least = cut.value if cut else least
        return cut

    each = [*orders(core)]
    best, best_order, others = along(each[0]), each[0], each[1:]
    for order, cut in zip(others, share(along, others, len(core.problem.nodes)), strict=True):
        if better(best, cut) is not best:
            best, best_order = cut, order
    return best, best_order


def cut_along(core: Core, order: np.ndarray, devices: Sequence[int], below: float = inf) -> Cut | None:
    """The best cut of one order, by neighbouring links and estimated peaks; None if its value is more than `below`."""
    problem, sweep, places = core.problem, Sweep(core, order), seats(core.problem, devices)
    leave_empty = not problem.every_device
    match problem.objective:
        case Objective.throughput:
            rules = {"overlap": problem.overlap, "leave_empty": leave_empty}
            chain = bottleneck(sweep, places, **rules, known=below, estimated=bool(problem.links))
        case Objective.latency:
            chain = cheapest(sweep, places, Seat.delay, leave_empty=leave_empty, reach=inf)
    if np.isinf(chain.value()):
        return None
    cut = judged(core, sweep.laid_out(chain.ends(core.n), devices))
    return cut if cut is not None and cut.value <= below else None


def first_bound(core: Core) -> float:
    """Seconds that no split can go below, without any search.

    A throughput: all work shared evenly, or the longest unit where it is core.fastest.  A latency: the longest path of
    values, as a call does not wait for what only comes before it.
    """
    match core.problem.objective:
        case Objective.throughput:
            return float(max(core.fastest.sum() / len(core.problem.devices), core.fastest.max()))
        case Objective.latency:
            path = core.fastest.copy()
            if core.problem.node_by_node:  # where the nodes of a unit may run side by side
                path[np.bincount(core.unit_of) > 1] = 0.0
            by_reader = np.argsort(core.values.members, kind="stable")
            makers = core.producer[core.values.owner[by_reader]]
            starts = np.searchsorted(core.values.members[by_reader], np.arange(core.n + 1))
            for unit in range(core.n):
                earlier = makers[starts[unit] : starts[unit + 1]]
                path[unit] += path[earlier[earlier < unit]].max(initial=0.0)
            return float(path.max())


def better(one: Cut | None, other: Cut | None) -> Cut | None:
    """The cut of lower value, `one` if they are equal."""
    if one is None or other is None:
        return one or other
    return other if other.value < one.value else one
