"""The loads of all stages J - I for ideals I inside J, as matrix products.

A value has |I & value| of its members done. If I is inside J, the stage J - I leaves the value untouched
if that number is the same in both, and contains it if the number goes from none to all. So with one
column for each value and number done, what is neither touched nor transferred is a product of one-hot rows,

    [number in I = number in J] + [none in I and all in J],

weighted by the cost of the value; transfers are the total less that. Weights work alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from passes.partitioners.core import Sets
from passes.partitioners.relaxed import Relaxed


@dataclass(frozen=True, eq=False)
class Done:
    """Ideals, and how much of every value and weight is done in them."""

    ideals: np.ndarray  # [ideals, units]
    values: np.ndarray  # [ideals, values] members done
    weights: np.ndarray  # [ideals, weights] readers done

    def where(self, chosen: np.ndarray | slice) -> Done:
        return Done(self.ideals[chosen], self.values[chosen], self.weights[chosen])


class Pairs:
    """Loads of stages between ideals of one relaxed problem."""

    def __init__(self, model: Relaxed) -> None:
        self.model, self.core = model, model.core
        self.size = np.diff(self.core.values.starts)
        self.time = np.where(np.isinf(model.time), 0.0, model.time)
        self.barred = np.isinf(model.time)
        paying = [c for c, kind in enumerate(model.classes) if not kind.free_transfers]
        self.least_cost = model.cost[paying].min(axis=0) if paying else np.zeros(len(self.core.values))
        made = np.zeros((len(model.classes), self.core.n))
        np.add.at(made.T, self.core.producer, model.cost.T)
        self.made = made  # [classes, units] seconds to send all that a unit makes

    def done(self, ideals: np.ndarray) -> Done:
        return Done(ideals, _counts(ideals, self.core.values), _counts(ideals, self.core.weights))

    def open_cost(self, done: Done) -> np.ndarray:
        """[ideals] what it costs at least to send the values with members on both sides."""
        return ((done.values > 0) & (done.values < self.size)) @ self.least_cost

    def loads(self, before: Done, after: Done, kind: int) -> np.ndarray:
        """[before, after] the load of each stage between on a device of a class, inf where there is none."""
        compute = self._difference(before, after, self.time[kind])
        possible = _inside(before.ideals, after.ideals)
        if self.barred[kind].any():
            possible &= self._difference(before, after, self.barred[kind].astype(float)) < 0.5
        if self.model.memory_matters:
            possible &= self._memory(before, after) <= self.model.classes[kind].memory * (1 + 1e-9)
        load = compute + self._transfers(before, after, kind) if not self.model.overlap else compute
        if self.model.overlap and not self.model.classes[kind].free_transfers:
            met = _changed(before.values, after.values, self.model.cost[kind])
            made = self._difference(before, after, self.made[kind])
            received = met - made
            sent = self._transfers(before, after, kind) - received
            load = np.maximum(compute, np.maximum(received, sent))
        return np.where(possible, load, np.inf)

    def _difference(self, before: Done, after: Done, amount: np.ndarray) -> np.ndarray:
        return (after.ideals @ amount)[None] - (before.ideals @ amount)[:, None]

    def _memory(self, before: Done, after: Done) -> np.ndarray:
        weights = _changed(before.weights, after.weights, self.core.weights.sizes[:, 0])
        return weights + self._difference(before, after, self.core.keeps)

    def _transfers(self, before: Done, after: Done, kind: int) -> np.ndarray:
        """Seconds to receive and to send."""
        if self.model.classes[kind].free_transfers:
            return np.zeros((len(before.ideals), len(after.ideals)))
        return _changed(before.values, after.values, self.model.cost[kind], self.size)


def _counts(ideals: np.ndarray, sets: Sets) -> np.ndarray:
    """[ideals, sets] how many members of each set are in each ideal."""
    if not len(sets):
        return np.zeros((len(ideals), 0), dtype=np.int16)
    return np.add.reduceat(ideals[:, sets.members].astype(np.int16), sets.starts[:-1], axis=1)


def _changed(before: np.ndarray, after: np.ndarray, cost: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """[before, after] the cost of the sets whose number differs; given sizes, not of those gone from none to all."""
    low, high = before.min(axis=0), before.max(axis=0)
    steady = (low == high) & (after.min(axis=0) == after.max(axis=0))
    counts = steady & (low != after[0]) & (cost > 0)
    if size is not None:
        counts &= ~((low == 0) & (after[0] == size))
    live = np.flatnonzero(~steady & (cost > 0))
    spread = (high - low + 1)[live]
    column = np.repeat(live, spread)
    number = np.arange(len(column)) - np.repeat(np.cumsum(spread) - spread, spread) + low[column]
    alike = (after[:, column] == number).astype(float)
    if size is not None:
        alike += (number == 0) & (after[:, column] == size[column])
    kept = (before[:, column] == number).astype(float) @ (alike * cost[column]).T
    return cost[counts].sum() + cost[live].sum() - kept


def _inside(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[before, after] whether the first ideal is inside the second."""
    some = np.flatnonzero(before.any(axis=0) & ~after.all(axis=0))
    return before[:, some].astype(np.float32) @ (~after[:, some]).astype(np.float32).T < 0.5
