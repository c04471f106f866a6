"""All stages of a small program: what `Sweep` is for one order, for every set of units that may come first.

The position of an ideal (a set of units with all that comes before them) is its place in a list by size. So a
split along positions is any split at all, and the dynamic program of `chain` finds the best of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from passes.partitioners.search.sweep import IntervalRow, Intervals, Wanted
from passes.partitioners.units import Core, Sets


class Lattice:
    """The ideals of a core's units, as positions 0 (nothing) to n (everything)."""

    def __init__(self, core: Core, ideals: np.ndarray) -> None:
        """`ideals[count, units]` are all of them, of ascending size."""
        self.core, self.ideals, self.n = core, ideals, len(ideals) - 1
        self.values, self.weights = _members(core.values, core.n), _members(core.weights, core.n)
        self.modules = _members(core.modules, core.n)
        self.least_time = ideals @ core.fastest

    def rows(self, reach: float, wanted: Wanted) -> Iterator[IntervalRow]:
        """A row for each ideal that is wanted; a stage that is no difference of ideals runs nowhere."""
        for i in filter(wanted, range(self.n)):
            yield IntervalRow(i, i + 1, self._intervals(i), (slice(0, self.n - i),))

    def _intervals(self, i: int) -> Intervals:
        core, before, after = self.core, self.ideals[i], self.ideals[i + 1 :]
        stage = after & ~before
        amount = stage.astype(float)
        valid = ~(before & ~after).any(axis=1)
        met = amount @ self.values
        made, inside = stage[:, core.producer], met == self.values.sum(axis=0)
        never = np.isinf(core.time)
        runs = ~(stage[None] & never[:, None, :]).any(axis=2) & valid
        return Intervals(
            compute=np.where(runs, (amount @ np.where(never, 0.0, core.time).T).T, np.inf),
            received=(((met > 0) & ~made) @ core.values.sizes).T,
            sent=((made & ~inside) @ core.values.sizes).T,
            memory=(amount @ self.weights > 0) @ core.weights.sizes[:, 0]
            + amount @ core.keeps
            + (amount * core.peak).max(axis=1),
            modules=(amount @ self.modules > 0).sum(axis=1),
        )

    def laid_out(self, ends: Sequence[int], devices: Sequence[int]) -> np.ndarray:
        """[units] the device of each unit, if `devices[i]` takes those from position `ends[i - 1]` to `ends[i]`."""
        stage = np.empty(self.core.n, dtype=np.int64)
        for start, end, device in zip([0, *ends], ends, devices, strict=False):
            stage[self.ideals[end] & ~self.ideals[start]] = device
        return stage


def all_ideals(core: Core, limit: int) -> np.ndarray | None:
    """[ideals, units] every ideal, by size; None if there are more than `limit`."""
    found, count = np.zeros((limit, core.n), dtype=bool), 1
    for unit, before in enumerate(core.neighbours(reverse=True)):
        joined = np.flatnonzero(found[:count, before].all(axis=1))
        if count + len(joined) > limit:
            return None
        fresh = slice(count, count + len(joined))
        found[fresh] = found[joined]
        found[fresh, unit] = True
        count = fresh.stop
    return found[np.argsort(found[:count].sum(axis=1), kind="stable")]


def _members(sets: Sets, n: int) -> np.ndarray:
    """[units, sets] 1 for each member of a set."""
    table = np.zeros((n, len(sets)))
    table[sets.members, sets.owner] = 1.0
    return table
