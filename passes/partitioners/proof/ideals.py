"""The ideals of a program: downward closed sets of units, the possible left sides of a cut.

All ideals whose weight lies in a window are listed by deciding one unit after another, along the
precedence: a unit may be in only if its predecessors are. A branch ends once it is too heavy, or once so
much is out that it stays too light. A unit whose ancestors alone are too heavy is out of all of them, and
one without whose descendants they would be too light is in all of them, so few units are left to decide.

No ideal has a weight between that of all that need not be behind a unit and that of its ancestors and itself, where
the latter are heavier: it is without the unit or with it. So devices in a row cannot do all that their seconds allow:
each begins at the weight of an ideal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from passes.partitioners.proof.relaxed import Relaxed

WEIGHT_ROUNDING = 1e-9  # relative to the weight of all units
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

    @cached_property
    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of intervals, apart from each other and ascending, in which no ideal weighs."""
        units = np.flatnonzero(self.most < self.least)
        units = units[np.argsort(self.most[units], kind="stable")]
        start, end = self.most[units], np.maximum.accumulate(self.least[units])
        apart = start[1:] > end[:-1] - WEIGHT_ROUNDING * self.total
        first = np.append(True, apart) if len(units) else np.zeros(0, dtype=bool)
        last = np.append(first[1:], True) if len(units) else first
        return start[first], end[last]

    def heaviest(self, weight: float) -> float:
        """The most that an ideal weighs which is no heavier than this, or a bound of that."""
        start, end = self._gaps
        at = int(np.searchsorted(start, weight)) - 1
        return float(start[at]) if at >= 0 and weight < end[at] - WEIGHT_ROUNDING * self.total else weight

    def lightest(self, weight: float) -> float:
        """The least that an ideal weighs which is no lighter than this, or a bound of that."""
        start, end = self._gaps
        at = int(np.searchsorted(end, weight, side="right"))
        return float(end[at]) if at < len(end) and weight > start[at] + WEIGHT_ROUNDING * self.total else weight

    def done_by(self, devices: np.ndarray, seconds: float) -> np.ndarray:
        """[devices + 1] the most weight that none, one, two, … of some devices do in `seconds` each.

        `devices` are the classes of the devices; where their paces differ, the fastest come first.
        """
        done = [0.0]
        for pace in sorted(self.pace[devices])[::-1]:
            weight = done[-1] + float(pace) * seconds
            done.append(self.heaviest(weight) if self._equal(devices) else weight)
        return np.array(done)

    def left_for(self, devices: np.ndarray, seconds: float) -> np.ndarray:
        """[devices + 1] the least weight of an ideal of which none, one, two, … of the devices can do the rest."""
        left = [self.total]
        for pace in sorted(self.pace[devices])[::-1]:
            weight = left[-1] - float(pace) * seconds
            left.append(self.lightest(weight) if self._equal(devices) else weight)
        return np.array(left)

    def _equal(self, devices: np.ndarray) -> bool:
        """Whether devices of these classes have one pace, so that their order does not matter."""
        return len(set(self.pace[devices].tolist())) <= 1

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
