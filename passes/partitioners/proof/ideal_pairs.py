"""The loads of all stages J - I for ideals I inside J, as matrix products.

A value has |I & value| of its members done. If I is inside J, the stage J - I leaves the value untouched
if that number is the same in both, and contains it if the number goes from none to all. So with one
column for each value and number done, what is neither touched nor transferred is a product of one-hot rows,

    [number in I = number in J] + [none in I and all in J],

weighted by the cost of the value; transfers are the total less that. Weights work alike.

Only units that some J has and some I lacks (the *active* ones) matter, and values with such a member.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from passes.partitioners.proof.relaxed import Relaxed
from passes.partitioners.units import Sets


class ActiveSets:
    """The sets with a member among some active units, and how much of each is done in an ideal."""

    def __init__(self, sets: Sets, active: np.ndarray, done: np.ndarray) -> None:
        """`active` are the units that ideals may differ in; `done[units]` says which others they hold."""
        column = np.full(len(done), -1)
        column[active] = np.arange(len(active))
        live = column[sets.members] >= 0
        self.which, starts = np.unique(sets.owner[live], return_index=True)
        self.columns, self.starts = column[sets.members[live]], starts
        surely = np.bincount(sets.owner[~live & done[sets.members]], minlength=len(sets))
        self.size = np.diff(sets.starts)[self.which]
        self.surely = surely[self.which].astype(np.int8 if self.size.max(initial=0) < 127 else np.int32)

    def count(self, ideals: np.ndarray) -> np.ndarray:
        """[ideals, sets] the members done, from the active columns of ideals."""
        if not len(self.which):
            return np.zeros((len(ideals), 0), dtype=np.int8)
        members = ideals[:, self.columns].view(np.int8)
        return np.add.reduceat(members, self.starts, axis=1, dtype=self.surely.dtype) + self.surely


class IdealPairs:
    """The stages J - I between some ideals I (`before`) and some others J (`after`)."""

    def __init__(self, model: Relaxed, before: np.ndarray, after: np.ndarray) -> None:
        self.model, self.done = model, np.asarray(before.all(axis=0))
        self.active = np.flatnonzero(~self.done & after.any(axis=0))
        self.before, self.after = before[:, self.active], after[:, self.active]
        self.values = ActiveSets(model.core.values, self.active, self.done)
        self.count_before, self.count_after = self.values.count(self.before), self.values.count(self.after)

    def loads(self, kind: int, rows: slice) -> np.ndarray:
        """[before, after] the load on a device of a class of each stage from some of the first ideals, else inf."""
        model, time = self.model, self.model.time[kind, self.active]
        barred = np.isinf(time)
        compute = self._sum(np.where(barred, 0.0, time), rows)
        possible = _inside(self.before[rows], self.after)
        if barred.any():
            possible &= self._sum(barred.astype(float), rows) < 0.5
        if model.memory_matters:
            possible &= self._memory(rows) <= model.classes[kind].memory * (1 + 1e-9)
        return np.where(possible, self._load(kind, compute, rows), np.inf)

    def _load(self, kind: int, compute: np.ndarray, rows: slice) -> np.ndarray:
        if self.model.classes[kind].free_transfers:
            return compute
        cost = self.model.cost[kind, self.values.which]
        transfers = _changed(self.count_before[rows], self.count_after, cost, self.values.size)
        if not self.model.overlap:
            return compute + transfers
        touched = _changed(self.count_before[rows], self.count_after, cost)
        received = touched - self._sum(self.model.made[kind, self.active], rows)
        return np.maximum(compute, np.maximum(received, transfers - received))

    def _sum(self, amount: np.ndarray, rows: slice) -> np.ndarray:
        return (self.after @ amount)[None] - (self.before[rows] @ amount)[:, None]

    def _memory(self, rows: slice) -> np.ndarray:
        core = self.model.core
        part = ActiveSets(core.weights, self.active, np.zeros(core.n, dtype=bool))
        weights = _changed(part.count(self.before[rows]), part.count(self.after), core.weights.sizes[part.which, 0])
        return weights + self._sum(core.keeps[self.active], rows)

    def only(self, chosen: np.ndarray) -> IdealPairs:
        """The same with only the `chosen` ideals after."""
        fewer = copy(self)
        fewer.after, fewer.count_after = self.after[chosen], self.count_after[chosen]
        return fewer

    def open_cost(self, counts: np.ndarray) -> np.ndarray:
        """[ideals] the least cost, in seconds, of sending every value with members on both sides of an ideal."""
        model, values = self.model, self.model.core.values
        paying = [c for c, kind in enumerate(model.classes) if not kind.free_transfers]
        if not paying:
            return np.zeros(len(counts))
        least = model.cost[paying].min(axis=0)
        steady = np.bincount(values.owner, self.done[values.members], len(values))
        crossing = (steady > 0) & (steady < np.diff(values.starts))
        crossing[self.values.which] = False
        return ((counts > 0) & (counts < self.values.size)) @ least[self.values.which] + least[crossing].sum()

    def surely_below(self, limit: float) -> np.ndarray:
        """[after] whether some stage that ends here has a load under `limit` even if it shares nothing.

        As k is submodular, k(J - I) <= k(I) + k(J). (For one class of devices that pay for transfers.)
        """
        time = self.model.time[0, self.active]
        begun = self.before @ time - self.open_cost(self.count_before)
        ended = self.after @ time + self.open_cost(self.count_after)
        latest = np.where(_inside(self.before, self.after), begun[:, None], -np.inf).max(axis=0)
        return ended - latest < limit


def _changed(before: np.ndarray, after: np.ndarray, cost: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """[before, after] the cost of the sets whose number differs; given sizes, not of those gone from none to all."""
    low, spread = before.min(axis=0), np.ptp(before, axis=0).astype(np.int64) + 1
    steady = np.flatnonzero(spread == 1)
    kept = _alike(after, low[steady], steady, size) @ cost[steady]
    varied = np.repeat(np.flatnonzero(spread > 1), spread[spread > 1])
    number = np.arange(len(varied)) - np.searchsorted(varied, varied) + low[varied]
    weighted = _alike(after, number, varied, size) * cost[varied]
    return cost.sum() - kept - (before[:, varied] == number).astype(float) @ weighted.T


def _alike(after: np.ndarray, number: np.ndarray, sets: np.ndarray, size: np.ndarray | None) -> np.ndarray:
    """[after, sets] 1 where a set has the number given (for each of the sets), or goes from none to all."""
    alike = after[:, sets] == number
    if size is not None:
        alike |= (number == 0) & (after[:, sets] == size[sets])
    return alike.astype(float)


def _inside(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[before, after] whether the first ideal is inside the second."""
    some = np.flatnonzero(before.any(axis=0) & ~after.all(axis=0))
    return before[:, some].astype(np.float32) @ (~after[:, some]).astype(np.float32).T < 0.5
