"""Cuts whose first and last stage share a device, for groups with members at both ends of a program.

A language model with one copy of a tied embedding needs its first and its last node on one device. In one
stage they would include all nodes between them. So the pipeline starts and ends on one device: with stages
[0, i) and [j, n) there, the others divide [i, j) as in a chain. For each of some first cuts i one dynamic
program gives the best division up to every j.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.partitioners.condense import indivisible
from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.model import Problem
from passes.partitioners.search.chain import bottleneck_from
from passes.partitioners.search.first_cut import Cut, better, judged
from passes.partitioners.search.orders import orders
from passes.partitioners.search.seats import seats, sequences
from passes.partitioners.search.sweep import N_VALUE, Intervals, Sweep
from passes.partitioners.units import Core, condensed

FIRST_CUTS = 24  # first cuts tried in each of two rounds


def wide_groups(problem: Problem) -> list[tuple[int, ...]]:
    """The groups that, kept in one stage, would fuse more than half an even share of the work."""
    least = np.array([min(node.time) for node in problem.nodes])
    half_share = least.sum() / len(problem.devices) / 2

    def closure(group: tuple[int, ...]) -> float:
        unit_of = indivisible(len(problem.nodes), problem.before, [group])
        return float(least[unit_of == unit_of[group[0]]].sum())

    return [group for group in problem.groups if len(group) > 1 and closure(group) > half_share]


def ring_core(problem: Problem, wide: Sequence[tuple[int, ...]]) -> Core:
    """The units if the `wide` groups are not fused."""
    narrow = [group for group in problem.groups if group not in wide]
    return condensed(problem, indivisible(len(problem.nodes), problem.before, narrow))


def ring_cut(core: Core, wide: Sequence[tuple[int, ...]], deadline: Deadline) -> Cut | None:
    """The best cut found with all `wide` groups on the device that holds the first and the last stage."""
    bound_units = np.unique(core.unit_of[[node for group in wide for node in group]])
    best: Cut | None = None
    for order in orders(core):
        for devices in sequences(core.problem):
            if best is not None and deadline.passed():
                return best
            best = better(best, _Ring(core, order, devices, bound_units).cut(deadline))
    return best


class _Ring:
    """The cuts of one order, on devices of which the first also runs the last stage."""

    def __init__(self, core: Core, order: np.ndarray, devices: Sequence[int], bound_units: np.ndarray) -> None:
        self.core, self.order, self.devices = core, order, devices
        self.sweep = Sweep(core, order)
        self.position = np.empty(core.n, dtype=np.int64)
        self.position[order] = np.arange(core.n)
        self.bound = np.sort(self.position[bound_units])
        self.seats = seats(core.problem, (*devices[1:], devices[0]))
        self.share = float(self.sweep.least_time[-1]) / len(devices)

    def cut(self, deadline: Deadline) -> Cut | None:
        """The best cut, of first cuts over the whole range and then of those around the best of them."""
        stop = int(np.searchsorted(self.sweep.least_time, 2 * self.share)) + 1
        tried: dict[int, tuple[float, list[int]]] = {}
        low, high = 0, min(stop, self.core.n)
        for _ in range(2):
            for first in np.unique(np.linspace(low, high, FIRST_CUTS).astype(int)).tolist():
                if first not in tried and not (tried and deadline.passed()):
                    tried[first] = self._best_with(first)
            along = sorted(tried)
            at = along.index(min(tried, key=lambda first: tried[first][0]))
            low, high = along[max(at - 1, 0)], along[min(at + 1, len(along) - 1)]
        best: Cut | None = None
        for first in sorted(tried, key=lambda first: tried[first][0])[:3]:
            if tried[first][1]:
                best = better(best, self._judge(first, tried[first][1]))
        return best

    def _best_with(self, first: int) -> tuple[float, list[int]]:
        """The least estimated value with the first stage [0, first), and the ends of the other stages."""
        problem, middle = self.core.problem, self.seats[:-1]
        chain = bottleneck_from(
            first,
            self.sweep,
            middle,
            2 * self.share + float(self.core.time.min(axis=0).max()),
            overlap=problem.overlap,
            leave_empty=not problem.every_device,
        )
        shared = self.seats[-1].load(self._outside(first), problem.overlap)
        value = np.maximum(chain.best[-1, first:], shared)
        following = self.bound[self.bound >= first]
        if len(following):
            value[following[0] - first + 1 :] = np.inf
        last = int(np.argmin(value))
        return float(value[last]), chain.ends(first + last) if np.isfinite(value[last]) else []

    def _outside(self, first: int) -> Intervals:
        """The stage pairs [0, first) and [j, n) over j = first, ..., n."""
        sweep, n = self.sweep, self.core.n
        made = sweep.produced[:, first, None] + sweep.produced[:, -1:] - sweep.produced[:, first:]
        met, own, weights = (np.zeros((rows, n + 2)) for rows in (N_VALUE, N_VALUE, 1))
        for sets, touched, contained in ((self.core.values, met, own), (self.core.weights, weights, None)):
            if not len(sets):
                continue
            where = self.position[sets.members]
            begins = np.minimum.reduceat(where, sets.starts[:-1])
            until = np.maximum.reduceat(where, sets.starts[:-1])
            following = np.minimum.reduceat(np.where(where >= first, where, n), sets.starts[:-1])
            np.add.at(touched.T, np.where(begins < first, n, until), sets.sizes)
            if contained is not None:
                np.add.at(contained.T, following, sets.sizes)
        met, own, weights = (_from(amount)[:, first : n + 1] for amount in (met, own, weights))
        barred = sweep.barred[:, first, None] + sweep.barred[:, -1:] - sweep.barred[:, first:] > 0
        compute = sweep.time[:, first, None] + sweep.time[:, -1:] - sweep.time[:, first:]
        last_peak = np.append(np.maximum.accumulate(sweep.peak[first:][::-1])[::-1], 0.0)
        keeps = sweep.keeps[first] + sweep.keeps[-1] - sweep.keeps[first:]
        return Intervals(
            compute=np.where(barred, np.inf, compute),
            received=met - made,
            sent=made - own,
            memory=weights[0] + keeps + sweep.peak[:first].max(initial=0.0) + last_peak,
            modules=np.zeros(n - first + 1),  # not counted here
        )

    def _judge(self, first: int, ends: list[int]) -> Cut | None:
        stage = np.empty(self.core.n, dtype=np.int64)
        labels = (*self.devices, self.devices[0] + len(self.devices))
        stage[self.order] = np.repeat(labels, np.diff([0, first, *ends, self.core.n]))
        return judged(self.core, stage)


def _from(amount: np.ndarray) -> np.ndarray:
    """Suffix sums along the last dimension."""
    return np.cumsum(amount[:, ::-1], axis=1)[:, ::-1]
