"""Dominated ideals: those at which no stage of a best pipeline needs to end.

Let I and I + v both be ideals that the devices used so far can have done. Any pipeline that goes on from I
can go on from I + v instead: the stage that held v loses it, and no other stage changes. That stage X
loses time(v), and as k (see `contract`) is symmetric and submodular, and I lies outside X,

    k(X - v) - k(X) = k(rest of X + v) - k(rest of X) <= k(I + v) - k(I).

So if k(I + v) - k(I) <= time(v) on every class of devices, I is dominated and can be dropped. With overlap, what is
sent and received must not grow at all, so the condition is k(I + v) <= k(I). Memory only shrinks.
"""

from __future__ import annotations

import numpy as np

from passes.partitioners.proof.ideal_pairs import ActiveSets, IdealPairs
from passes.partitioners.proof.relaxed import Relaxed


class Dominance:
    """The search for dominated ideals of one relaxed problem."""

    def __init__(self, model: Relaxed) -> None:
        self.model = model
        self.predecessors = model.core.neighbours(reverse=True)
        self.mark = np.random.default_rng(0).integers(1 << 63, size=model.core.n, dtype=np.uint64)

    def worth_keeping(self, pairs: IdealPairs, reached: np.ndarray) -> np.ndarray:
        """Those of the ideals `reached` (by number) that are not dominated."""
        rows, part, active = pairs.after[reached], pairs.values, pairs.active
        column = {unit: at for at, unit in enumerate(active.tolist())}
        counts, of_unit = pairs.count_after[reached], _sets_of_columns(part, len(active))
        name = (rows * self.mark[active]).sum(axis=1, dtype=np.uint64)
        by_name = np.argsort(name)
        kept = np.ones(len(rows), dtype=bool)
        for at, unit in enumerate(active.tolist()):
            needs = [column[p] for p in self.predecessors[unit] if p in column]
            at_hand = np.flatnonzero(kept & ~rows[:, at] & rows[:, needs].all(axis=1))
            at_hand = at_hand[self._no_worse(unit, counts[at_hand][:, of_unit[at]], part, of_unit[at])]
            wanted = name[at_hand] + self.mark[unit]
            found = by_name[np.searchsorted(name, wanted, sorter=by_name).clip(max=len(name) - 1)]
            same = name[found] == wanted
            kept[at_hand[same]] = (rows[at_hand[same]] | (np.arange(len(active)) == at) != rows[found[same]]).any(
                axis=1
            )
        return reached[kept]

    def _no_worse(self, unit: int, counts: np.ndarray, part: ActiveSets, sets: np.ndarray) -> np.ndarray:
        """[ideals] whether the unit may be added, from the members done of the sets it is in."""
        grows = (counts + 1 < part.size[sets]).astype(float) - (counts > 0)
        growth = grows @ self.model.cost[:, part.which[sets]].T
        return (growth <= (0.0 if self.model.overlap else self.model.time[:, unit])).all(axis=1)


def _sets_of_columns(part: ActiveSets, n: int) -> list[np.ndarray]:
    """For each active column the sets (by their place in the part) that have it as a member."""
    owner = np.repeat(np.arange(len(part.which)), np.diff(np.append(part.starts, len(part.columns))))
    by_column = np.argsort(part.columns, kind="stable")
    ends = np.searchsorted(part.columns[by_column], np.arange(n + 1))
    return [owner[by_column[ends[at] : ends[at + 1]]] for at in range(n)]
