"""The cost of every stage that is an interval of one order, row by row.

Everything a stage S costs is a sum over sets of units, of two kinds only. A set counts as *touched* if
one of its members is in S, as *contained* if all are. With a value as the set of its producer and
consumers,

    received by S = touched - produced in S,        sent by S = produced in S - contained,

S holds a weight that it touches, and times add up. (This holds wherever a value's readers
lie, even before its producer, as in a backward pass.)

For stages [i, j) of one order, fix i. A set is touched from j = 1 + (its first position >= i) on, and, if
it lies wholly at or after i, contained from j = 1 + (its last position) on. So a row is a running sum over
j of what begins there, and going from i to i + 1 changes only the sets with a member at position i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from passes.partitioners.units import Core, Sets

Wanted: TypeAlias = Callable[[int], bool]

_AT_ONCE = 8192  # stages whose costs are computed at once, in the processor's cache
_FEW = 8  # up to which a loop is quicker than np.add.at
N_VALUE, WEIGHTS, MODULES, N_ALL = 2, 2, 3, 4  # channels: number of values, bytes sent; bytes of weights; modules


@dataclass(frozen=True, eq=False)
class Intervals:
    """The costs of the stages that begin at one position [width], or at several in a row [starts, width].

    Of several, what ends no later than it begins has numbers without a meaning.
    """

    compute: np.ndarray  # [kinds, ...] seconds
    received: np.ndarray  # [2, ...] number of values, bytes
    sent: np.ndarray  # [2, ...]
    memory: np.ndarray  # bytes
    modules: np.ndarray  # number of modules with a unit in the stage
    loads: dict[Any, np.ndarray] = field(default_factory=dict)  # by seat, once it is known
    prices: dict[Any, np.ndarray] = field(default_factory=dict)  # by what asks for them, once they are known


class IntervalRow(NamedTuple):
    """The stages [start, j) for j = end, end + 1, ..., and their place among those whose costs are known."""

    start: int
    end: int
    intervals: Intervals
    place: tuple[Any, ...]

    def of(self, costs: np.ndarray) -> np.ndarray:
        """[width] the part of the row in costs of all the intervals."""
        return costs[self.place]

    def from_end(self, end: int) -> IntervalRow:
        """The row without the stages that end before `end`."""
        if end <= self.end:
            return self
        *others, window = self.place
        place = (*others, slice(window.start + end - self.end, window.stop))
        return IntervalRow(self.start, end, self.intervals, place)


class Sweep:
    """All intervals of one order of a core's units."""

    def __init__(self, core: Core, order: np.ndarray) -> None:
        self.n = core.n
        self.order = order
        position = np.empty(core.n, dtype=np.int64)
        position[order] = np.arange(core.n)
        time = core.time[:, order]
        self.time = _sums(np.where(np.isinf(time), 0.0, time))
        self.barred = _sums(np.isinf(time).astype(float))
        self.runs_everywhere = not self.barred[:, -1].any()
        self.least_time = _sums(core.fastest[order][None])[0]
        self.keeps = _sums(core.keeps[order][None])[0]
        self.peak = core.peak[order]
        made = np.zeros((N_VALUE, core.n))
        np.add.at(made.T, position[core.producer], core.values.sizes)
        self.produced = _sums(made)
        both = _joined(core)
        self._touch = _Touched(both, position)
        self._inside = _Contained(core.values, position)

    def fair_share(self, stages: int) -> float:
        """Seconds that the longest of so many stages computes at least."""
        return float(max(self.least_time[-1] / stages, np.diff(self.least_time).max()))

    def rows(self, reach: float, wanted: Wanted) -> Iterator[IntervalRow]:
        """A row for each start that is wanted, wide enough for every stage that may compute within `reach` seconds.

        Whether one is wanted is asked once the rows before it have been used.  The costs of several are computed at
        once: of twice as many as were wanted of those before.
        """
        last = np.searchsorted(self.least_time, self.least_time + reach * (1 + 1e-12), side="right") - 1
        last = np.maximum(last[:-1], np.arange(1, self.n + 1))
        state, known, intervals, used = self._begin(), range(0), None, 1
        for i in filter(wanted, range(self.n)):
            if intervals is None or i not in known:
                most = _AT_ONCE // (int(last[i]) - i)
                known = range(i, min(i + max(1, min(2 * used, most)), self.n))
                intervals, used = self._intervals(known, int(last[known[-1]]), state), 0
            used += 1
            at = i - known.start
            yield IntervalRow(i, i + 1, intervals, (at, slice(at, int(last[i]) - known.start)))

    def laid_out(self, ends: Sequence[int], devices: Sequence[int]) -> np.ndarray:
        """[units] the device of each unit, if `devices[i]` takes those from position `ends[i - 1]` to `ends[i]`."""
        stage = np.empty(self.n, dtype=np.int64)
        stage[self.order] = np.repeat(devices, np.diff([0, *ends]))
        return stage

    def filled(self, memory: float) -> list[float]:
        """The bytes on each device if one after the other is filled up to `memory`; empty if a unit does not fit."""
        held: list[float] = []
        state, end = self._begin(), 0
        while end < self.n:
            memories = self._intervals(range(end, end + 1), self.n, state).memory[0]
            fitting = int(np.searchsorted(memories, memory * (1 + 1e-12), side="right"))
            if not fitting:
                return []
            held.append(float(memories[fitting - 1]))
            end += fitting
        return held

    def alone(self) -> np.ndarray:
        """[units] the memory of a stage of one unit."""
        alone, state = np.empty(self.n), self._begin()
        for i in range(self.n):
            alone[self.order[i]] = self._intervals(range(i, i + 1), i + 1, state).memory[0, 0]
        return alone

    def _begin(self) -> _State:
        return _State(self._touch.begin(self.n), self._inside.begin(self.n))

    def _intervals(self, starts: range, last: int, state: _State) -> Intervals:
        """The costs of the stages that begin at `starts` and end up to `last`; the state goes on to these starts."""
        first, here, window = starts[0], slice(starts[0], starts[-1] + 1), slice(starts[0] + 1, last + 1)
        met, own = (np.zeros((channels, len(starts), last - first)) for channels in (N_ALL, N_VALUE))
        for at, start in enumerate(starts):
            self._touch.leave(state.row, start, state.touched)
            self._inside.leave(state.row, start, state.inside)
            state.row = start
            met[:, at, at:], own[:, at, at:] = (sums[:, start + 1 : last + 1] for sums in (state.touched, state.inside))
        met, own = np.cumsum(met, axis=2), np.cumsum(own, axis=2)
        made = self.produced[:, None, window] - self.produced[:, here, None]
        compute = self.time[:, None, window] - self.time[:, here, None]
        if not self.runs_everywhere:
            compute[self.barred[:, None, window] != self.barred[:, here, None]] = np.inf
        return Intervals(
            compute=compute,
            received=met[:N_VALUE] - made,
            sent=made - own,
            memory=self._memory(here, window, met[WEIGHTS]),
            modules=met[MODULES],
        )

    def _memory(self, here: slice, window: slice, weights: np.ndarray) -> np.ndarray:
        """[starts, width] bytes of stages with these `weights`."""
        peaks, peak = self.peak[here.start : window.stop - 1], np.zeros(weights.shape)
        for at, row in enumerate(peak):
            np.maximum.accumulate(peaks[at:], out=row[at:])  # from where each stage begins
        return weights + self.keeps[None, window] - self.keeps[here, None] + peak


@dataclass
class _State:
    """The running sums for a row: what sets begin at each position, and what end there."""

    touched: np.ndarray
    inside: np.ndarray
    row: int = 0


class _Touched:
    """For the current row, the position at which each set is first touched."""

    def __init__(self, sets: Sets, position: np.ndarray) -> None:
        where = position[sets.members]
        by_set = np.lexsort((where, sets.owner))
        where, owner = where[by_set], sets.owner[by_set]
        last_of_set = np.append(owner[1:] != owner[:-1], True) if len(owner) else np.zeros(0, dtype=bool)
        following = np.where(last_of_set, len(position), np.append(where[1:], 0)[: len(where)])
        self.first = where[sets.starts[:-1]]
        self.sizes = sets.sizes
        along = np.argsort(where, kind="stable")
        self.moved = _Changes(where[along], following[along] + 1, sets.sizes[owner[along]], len(position))

    def begin(self, n: int) -> np.ndarray:
        starts = np.zeros((N_ALL, n + 2))
        np.add.at(starts.T, self.first + 1, self.sizes)
        return starts

    def leave(self, row: int, other: int, starts: np.ndarray) -> None:
        """Go from a row to another one behind it."""
        self.moved.add_to(starts, row, other)
        starts[:, row + 1 : other + 1] = 0.0


class _Contained:
    """For the current row, the position at which each set that lies wholly ahead is complete."""

    def __init__(self, sets: Sets, position: np.ndarray) -> None:
        where = position[sets.members]
        first, last = np.zeros(len(sets), dtype=np.int64), np.zeros(len(sets), dtype=np.int64)
        if len(sets):
            first = np.minimum.reduceat(where, sets.starts[:-1])
            last = np.maximum.reduceat(where, sets.starts[:-1])
        along = np.argsort(first, kind="stable")
        self.left = _Changes(first[along], last[along] + 1, -sets.sizes[along], len(position))

    def begin(self, n: int) -> np.ndarray:
        ends = np.zeros((N_VALUE, n + 2))
        np.add.at(ends.T, self.left.places, -self.left.amounts)
        return ends

    def leave(self, row: int, other: int, ends: np.ndarray) -> None:
        self.left.add_to(ends, row, other)


class _Changes:
    """The changes of the running sums from one row to the next, at some of their places."""

    def __init__(self, rows: np.ndarray, places: np.ndarray, amounts: np.ndarray, n: int) -> None:
        """`rows` ascend; `amounts[change, channels]`."""
        self.places, self.amounts = places, amounts
        self.first = np.searchsorted(rows, np.arange(n + 1)).tolist()
        self.each = [*zip(places.tolist(), amounts, strict=True)]

    def add_to(self, sums: np.ndarray, row: int, other: int) -> None:
        """Change `sums[channels, places]` of a row to those of another one behind it."""
        first, end = self.first[row], self.first[other]
        if end - first > _FEW:
            np.add.at(sums.T, self.places[first:end], self.amounts[first:end])
            return
        for place, amount in self.each[first:end]:
            sums[:, place] += amount


def _joined(core: Core) -> Sets:
    """Values, weights and modules as sets with the same channels."""
    kinds = ((core.values, slice(0, N_VALUE)), (core.weights, WEIGHTS), (core.modules, MODULES))
    sizes = np.zeros((sum(len(sets) for sets, _ in kinds), N_ALL))
    starts, members, row = [np.zeros(1, dtype=np.int64)], [], 0
    for sets, channels in kinds:
        sizes[row : row + len(sets), channels] = sets.sizes if isinstance(channels, slice) else sets.sizes[:, 0]
        starts.append(sum(map(len, members)) + sets.starts[1:])
        members.append(sets.members)
        row += len(sets)
    return Sets(np.concatenate(starts), np.concatenate(members), sizes)


def _sums(rows: np.ndarray) -> np.ndarray:
    """[rows, n] -> [rows, n + 1]: the sum of the first j entries, for each j."""
    return np.concatenate((np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)), axis=1)
