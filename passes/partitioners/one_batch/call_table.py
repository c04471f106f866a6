"""The calls between the ideals of a program, and their seconds.

With b(X) the cost of the values open at an ideal X (made and not yet read by all), a call from I to J receives b(I)
less the values that it leaves alone, and sends those of its own values that are open at J. What it leaves alone is a
product of one-hot rows: the number of readers done is the same at I and at J.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from passes.partitioners.one_batch.slack import Slack
from passes.partitioners.proof.relaxed import Relaxed
from passes.partitioners.units import Sets

_EXACT = 4_000  # ideals up to which sums are of 64 bits
_ROUNDING = 1e-9  # relative


@dataclass(frozen=True, eq=False)
class CallList:
    """Calls on a class of devices, from ideal `begin` to ideal `end` [calls], ascending by the latter.

    `seconds[calls]`; `units[calls]` are those that are done where the class runs node by node, else there are none.
    """

    kind: int
    begin: np.ndarray
    end: np.ndarray
    seconds: np.ndarray
    units: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def only(self, kept: np.ndarray | slice) -> CallList:
        """The calls for which `kept[calls]` holds, or those of a slice."""
        units = self.units[kept] if len(self.units) else self.units
        return CallList(self.kind, self.begin[kept], self.end[kept], self.seconds[kept], units)


class CallTable:
    """All calls of a relaxed problem. `ideals[ideals, units]` are in ascending order of size."""

    def __init__(self, model: Relaxed, ideals: np.ndarray, via_host: bool, moved: np.ndarray) -> None:
        """`moved[nodes]` are nodes that were moved into units of an easier problem (see `slack`)."""
        core = model.core
        self.model, self.ideals, self.via_host = model, ideals, via_host
        self.exactly = np.dtype(np.float64 if len(ideals) <= _EXACT else np.float32)
        size = ideals.sum(axis=1)
        self.first = np.searchsorted(size, np.arange(core.n + 2))  # the first ideal of each size
        self.follows = np.zeros((core.n, core.n), dtype=np.float32)  # [units, units] whether an edge leads to the first
        self.follows[core.edges[:, 1], core.edges[:, 0]] = 1.0
        self.made = ideals[:, core.producer]
        self.values = _OneHot(_readers(core.values, core.producer), ideals)
        self.open = self.made & (self.values.done < self.values.size)
        alone = np.diff(core.weights.starts) == 1
        self.weights = _OneHot(_some(core.weights, ~alone), ideals)
        self.weight_bytes = core.weights.sizes[~alone, 0]
        self.everything = np.ones((len(ideals), len(self.weight_bytes)), dtype=bool)
        keeps = core.keeps.copy()
        np.add.at(keeps, core.weights.members[alone[core.weights.owner]], core.weights.sizes[alone, 0])
        self.keeps = ideals @ keeps
        times = np.where(np.isinf(model.time), 0.0, model.time)
        self.seconds = (ideals @ times.T).T.astype(self.exactly)  # [classes, ideals]
        self.barred = (ideals @ np.isinf(model.time).T.astype(np.float32)).T  # [classes, ideals] units that cannot run
        self.slack = Slack(model, ideals, moved, self.exactly)
        lent = np.array([core.problem.nodes[node].bytes for node in np.flatnonzero(moved)])
        sums = (len(summed) * summed.sum() for summed in (self.weight_bytes, lent))
        self.unsure = float(np.finfo(self.exactly).eps) * sum(sums)  # bytes by which those of a stage may be off

    def stages(self, kind: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The stages on a class of devices that end at ideals of a size: where they begin, where they end, and
        [begin, end] their seconds, inf where there is none.
        """
        devices, barred = self.model.classes[kind], self.barred[kind]
        room = devices.memory * (1 + _ROUNDING) + self.unsure
        end = np.arange(self.first[size], self.first[size + 1])
        early, late = self.slack.most_bytes()
        least = (self.keeps - late)[end].min(initial=np.inf) - room
        begin = np.flatnonzero((self.keeps + early)[: self.first[size]] >= least)
        seconds = self.seconds[kind, end] - self.seconds[kind, begin, None]
        seconds += self._transfers(kind, begin, end) - self.slack.seconds(kind, begin, end)
        possible = self._inside(begin, end)
        if barred[-1]:
            possible &= barred[end] - barred[begin, None] < 0.5
        if np.isfinite(devices.memory):
            held = (self.keeps[end] - self.keeps[begin, None]) + self._weights(begin, end)
            held -= self.slack.bytes(begin, end)
            possible &= held <= room
        seconds[~possible] = np.inf
        return begin, end, seconds

    def single(self, kind: int, size: int) -> CallList:
        """The calls of a class that runs node by node that end at ideals of a size: one unit each."""
        first, start, stop = self.first[size - 1 : size + 2]
        place = {row.tobytes(): i for i, row in enumerate(np.packbits(self.ideals[first:start], axis=1), start=first)}
        rows = self.ideals[start:stop]
        last = rows & ~(rows.astype(np.float32) @ self.follows > 0) & np.isfinite(self.model.time[kind])
        to, unit = np.nonzero(last)
        less = rows[to]
        less[np.arange(len(to)), unit] = False
        begin = np.array([place[row.tobytes()] for row in np.packbits(less, axis=1)], dtype=np.int64)
        return CallList(kind, begin, start + to, self.model.time[kind, unit], unit)

    def _inside(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] whether the first ideal is inside the second."""
        some = np.flatnonzero(self.ideals[begin].any(axis=0) & ~self.ideals[end].all(axis=0))
        before, missing = self.ideals[np.ix_(begin, some)], ~self.ideals[np.ix_(end, some)]
        return before.astype(np.float32) @ missing.astype(np.float32).T < 0.5

    def _weights(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] bytes of the weights that several units read, and a call does."""
        return self.weights.changed(begin, end, self.everything, self.weight_bytes, self.exactly)

    def _transfers(self, kind: int, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] seconds for what a call receives, and by the host's memory for what it sends."""
        cost = self.model.cost[kind]
        received = self.values.changed(begin, end, self.open, cost, self.exactly)
        if not self.via_host:
            return received
        live = np.flatnonzero(self.open[end].any(axis=0) & (cost > 0))
        leaves = (self.open[np.ix_(end, live)] * cost[live]).astype(self.exactly)
        kept = self.made[np.ix_(begin, live)].astype(self.exactly) @ leaves.T
        return received + leaves.sum(axis=1) - kept


class _OneHot:
    """The number of members of each set that are done at each ideal, compared by products of matrices."""

    def __init__(self, sets: Sets, ideals: np.ndarray) -> None:
        self.size = np.diff(sets.starts)
        table = np.zeros((ideals.shape[1], len(sets)), dtype=np.float32)
        table[sets.members, sets.owner] = 1.0
        self.done = (ideals.astype(np.float32) @ table).astype(np.int32)
        self.of = np.repeat(np.arange(len(sets)), self.size + 1)  # the set and the number of each column
        self.number = np.arange(len(self.of)) - np.repeat(np.cumsum(self.size + 1) - self.size - 1, self.size + 1)

    def changed(
        self, begin: np.ndarray, end: np.ndarray, counted: np.ndarray, cost: np.ndarray, kind: np.dtype
    ) -> np.ndarray:
        """[begin, end] the cost of the sets, `counted[ideals, sets]` at the first ideal, whose numbers differ."""
        counts = counted[begin] * cost
        sets = np.flatnonzero(counts.any(axis=0))
        columns = np.flatnonzero(np.isin(self.of, sets))
        of, number = self.of[columns], self.number[columns]
        before = (self.done[np.ix_(begin, of)] == number) * counts[:, of]
        seen = np.flatnonzero(before.any(axis=0))
        after = self.done[np.ix_(end, of[seen])] == number[seen]
        return counts.sum(axis=1)[:, None] - before[:, seen].astype(kind) @ after.astype(kind).T


def _readers(values: Sets, producer: np.ndarray) -> Sets:
    """The consumers of each value."""
    kept = values.members != producer[values.owner]
    return _subset(values, kept)


def _some(sets: Sets, chosen: np.ndarray) -> Sets:
    kept = _subset(sets, chosen[sets.owner])
    return Sets(np.concatenate(([0], np.cumsum(np.diff(kept.starts)[chosen]))), kept.members, sets.sizes[chosen])


def _subset(sets: Sets, kept: np.ndarray) -> Sets:
    """The same sets with only the members that are kept."""
    counts = np.bincount(sets.owner[kept], minlength=len(sets))
    return Sets(np.concatenate(([0], np.cumsum(counts))), sets.members[kept], sets.sizes)
