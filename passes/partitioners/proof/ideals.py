"""The ideals of a program: downward closed sets of units, the possible left sides of a cut.

All ideals whose weight lies in a window are listed by deciding one unit after another, along the
precedence: a unit may be in only if its predecessors are. A branch ends once it is too heavy, or once so
much is out that it stays too light. A unit whose ancestors alone are too heavy is out of all of them, and
one without whose descendants they would be too light is in all of them, so few units are left to decide.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.partitioners.proof.relaxed import Relaxed

_BLOCK = 64  # rows of a matrix that become numbers at once, in the processor's cache


class TooWide(Exception):
    """More ideals than the limit."""


class Ideals:
    """Lists of ideals by weight, over units numbered in topological order."""

    def __init__(self, model: Relaxed) -> None:
        """A unit weighs its time on the most common class; a device does at most `pace` of that in a second."""
        main = max(range(len(model.classes)), key=lambda c: len(model.classes[c].devices))
        self.weight = np.where(np.isinf(model.time[main]), 0.0, model.time[main])
        self.total = float(self.weight.sum())
        self.pace = np.array([_pace(self.weight, time) for time in model.time])
        self.predecessors = model.core.neighbours(reverse=True)
        self.above = _ancestors(self.predecessors)
        above, below = _sums_along(self.above, self.weight)
        self.least = self.weight + above
        self.most = self.total - self.weight - below

    def within(self, low: float, high: float, start: np.ndarray, span: float, limit: int) -> np.ndarray:
        """[ideals, units] membership of every ideal that weighs `low` to `high`, and is one of those that
        `start` lists with units of at most the weight `span` added (and perhaps some that are not).

        Raises TooWide if there are more than `limit`.
        """
        inside, outside = (self.most < low) | start.all(axis=0), self.least > high
        unsure = np.flatnonzero(~inside & ~outside)
        left = np.where(start.any(axis=0), 0.0, self.weight)
        outside[unsure] = self.above[unsure] @ left + left[unsure] > span
        if (inside & outside).any():
            return np.zeros((0, len(self.weight)), dtype=bool)
        free = np.flatnonzero(~inside & ~outside)
        rows = self._decide(free, inside, outside, low, high, limit)
        found = np.repeat(inside[None], len(rows), axis=0)
        found[:, free] = rows
        return found

    def _decide(
        self, free: np.ndarray, inside: np.ndarray, outside: np.ndarray, low: float, high: float, limit: int
    ) -> np.ndarray:
        column = {unit: at for at, unit in enumerate(free.tolist())}
        rows = np.zeros((1, len(free)), dtype=bool)
        into, out = np.array([self.weight[inside].sum()]), np.array([self.weight[outside].sum()])
        for at, unit in enumerate(free.tolist()):
            weight = self.weight[unit]
            needs = [column[p] for p in self.predecessors[unit] if p in column]
            join = rows[:, needs].all(axis=1) & (into + weight <= high)
            stay = out + weight <= self.total - low
            joined = rows[join]
            joined[:, at] = True
            rows = np.concatenate((rows[stay], joined))
            into = np.concatenate((into[stay], into[join] + weight))
            out = np.concatenate((out[stay] + weight, out[join]))
            if len(rows) > limit:
                raise TooWide
        return rows


def _ancestors(predecessors: Sequence[Sequence[int]]) -> np.ndarray:
    """[units, units] whether the second is above the first."""
    above = np.zeros((len(predecessors), len(predecessors)), dtype=bool)
    for unit, direct in enumerate(predecessors):
        for other in direct:
            above[unit] |= above[other]
            above[unit, other] = True
    return above


def _sums_along(above: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[units] the weight of all that is above each unit, and of all that is below it.

    What is above a unit has a lesser number, and only so much of the table becomes numbers, a block at once.
    """
    before, after = np.zeros((2, len(weight)))
    for start in range(0, len(weight), _BLOCK):
        end = min(start + _BLOCK, len(weight))
        block = above[start:end, :end].astype(float)
        before[start:end] = block @ weight[:end]
        after[:end] += weight[start:end] @ block
    return before, after


def _pace(weight: np.ndarray, time: np.ndarray) -> float:
    """The most weight that a device can do in a second."""
    if ((time == 0) & (weight > 0)).any():
        return float("inf")
    busy = time > 0
    return float((weight[busy] / time[busy]).max(initial=0.0))
