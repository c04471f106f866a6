"""The best cut of one order of units into a pipeline of seats: a dynamic program over prefixes.

`best[k, j]` is the least value of the first j units on the first k seats. The last of those stages begins at
some i <= j, so

    best[k, j] = min over i of  max(best[k - 1, i], load[k](i, j))      for a bottleneck,
    best[k, j] = min over i of  best[k - 1, i] + price[k](i, j)         for a sum.

Rows of intervals come in order of i, so that all seats advance at once. Stages whose compute alone exceeds a guess
of the value are not considered, nor positions that so many seats cannot reach or complete within the guess, each
computing as many whole units as it can: a split whose value is within the guess is the best of all. The first guess
is little more than such seats need to get to the end; if there is no split within it, the guess grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from passes.partitioners.search.lattice import Lattice
from passes.partitioners.search.seats import Seat
from passes.partitioners.search.sweep import IntervalRow, Intervals, Sweep

Price = Callable[[Seat, Intervals], np.ndarray]

FIRST_SPARE = 0.005  # of the longest compute of the evenest split, by which the first guess is above it
MORE = 2  # times as much, by which the next guess is
ROUNDING = 1e-9  # relative
NEARLY = 1e-3  # relative: how close the longest compute of the evenest split is bounded
_TIMES = (1.0, 4 / 3)  # the least sum, by which guesses of a sum are as large or larger
EQUAL = 1e-14  # relative: sums of prices that differ by less are the same


@dataclass(frozen=True, eq=False)
class Chain:
    """The table of a dynamic program; `ends` reads a split out of it."""

    best: np.ndarray  # [seats + 1, n + 1]
    start: np.ndarray  # [seats + 1, n + 1] the position at which the stage that ends there begins

    def value(self) -> float:
        """The value of the best split, in seconds; inf if there is none."""
        return float(self.best[-1, -1])

    def ends(self, end: int) -> list[int]:
        """The position at which the stage of each seat ends, if the last one ends at `end`."""
        found: list[int] = []
        for seat in range(len(self.best) - 1, 0, -1):
            found.append(end)
            end = int(self.start[seat, end])
        return found[::-1]


def bottleneck(
    sweep: Sweep, seats: Sequence[Seat], *, overlap: bool, leave_empty: bool, known: float, estimated: bool = False
) -> Chain:
    """The split of least bottleneck along the sweep's order, exact up to the value `known`.

    If loads are `estimated`, those of a split of that value may seem larger, and one that seems so is returned, too.
    """
    alone = float(sweep.least_time[-1])  # of one device that computes all
    enough = min(alone, known)
    most = enough if estimated else alone
    least, spare = _longest_compute(sweep, len(seats)), FIRST_SPARE
    while True:
        if known <= least * (1 + MORE * spare):
            spare *= MORE
        guess = least * (1 + spare)
        reach = min(guess, known)
        limit = reach if reach < most else inf  # a split of more is not the one that is looked for
        chain = _fill(sweep, seats, _load(overlap), np.maximum, leave_empty, _Reach(reach, limit=limit))
        if chain.value() <= guess or guess >= enough:
            return chain
        spare *= MORE


def _longest_compute(sweep: Sweep, stages: int) -> float:
    """Seconds, at most `NEARLY` too few, that the longest of so many stages of whole units computes at least."""
    done, low, high = sweep.least_time, sweep.fair_share(stages), float(sweep.least_time[-1])
    while high > low * (1 + NEARLY):
        middle, at = (low + high) / 2, 0
        for _ in range(stages):
            at = int(np.searchsorted(done, done[at] + middle * (1 + ROUNDING), side="right")) - 1
        low, high = (low, middle) if done[at] >= done[-1] * (1 - ROUNDING) else (middle, high)
    return low


def bottleneck_from(
    start: int, sweep: Sweep, seats: Sequence[Seat], reach: float, *, overlap: bool, leave_empty: bool
) -> Chain:
    """The splits of least bottleneck from position `start` to any other, exact up to the value `reach`."""
    return _fill(sweep, seats, _load(overlap), np.maximum, leave_empty, _Reach(reach, start, to_any=True))


def cheapest(
    sweep: Sweep | Lattice,
    seats: Sequence[Seat],
    price: Price,
    *,
    leave_empty: bool,
    reach: float,
    among_equals: Price | None = None,
    rest: np.ndarray | None = None,
) -> Chain:
    """The split of least summed `price`; a stage computes for at most `reach` seconds.

    Of several such splits it is one whose largest `among_equals` is least.  `rest[k, j]` is the least that is still to
    be paid by what follows the first j units on the first k seats: with it, sums are searched below guesses that grow.
    """
    least = 0.0 if rest is None else float(rest[0, 0])
    for times in _TIMES if least else ():
        limit = least * times + 0.5
        chain = _fill(sweep, seats, price, np.add, leave_empty, _Reach(reach, limit=limit, rest=rest), among_equals)
        if chain.value() <= limit:
            return chain
    return _fill(sweep, seats, price, np.add, leave_empty, _Reach(reach), among_equals)


def _load(overlap: bool) -> Price:
    return lambda seat, stages: seat.load(stages, overlap)


@dataclass(frozen=True)
class _Reach:
    """The splits that are considered: the most seconds that a stage computes, and where the stages begin and end."""

    seconds: float
    begin: int = 0
    to_any: bool = False  # whether splits may end anywhere, not after the last unit alone
    limit: float = inf  # the most that a split may cost which goes on
    rest: np.ndarray | None = None  # [seats + 1, positions] the least that one adds to that which goes on

    def seats_before(self, least_time: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """[positions] the fewest and the most of `count` seats that can end at a position of a split."""
        done = np.full(len(least_time), count + 1)
        done[self.begin :] = self._seats_for(least_time[self.begin :], count)
        if self.to_any:
            return done, np.full(len(done), count)
        left = self._seats_for(least_time[-1] - least_time[::-1], count)[::-1]
        return done, count - left

    def _seats_for(self, seconds: np.ndarray, count: int) -> np.ndarray:
        """[positions] the fewest seats that get to each position from the first; `count + 1` where so many do not.

        The first has the least `seconds`; those of a `Lattice` do not ascend.
        """
        order = np.argsort(seconds, kind="stable")
        ascending, needed = seconds[order], np.full(len(seconds), count + 1)
        room = max(self.seconds, np.finfo(float).tiny) * (1 + ROUNDING)
        begin, end = 0, int(np.searchsorted(ascending, seconds[0], side="right"))
        for used in range(count + 1):
            needed[order[begin:end]] = used
            reached = ascending[end - 1] + room
            begin, end = end, int(np.searchsorted(ascending, reached + ROUNDING * abs(reached), side="right"))
        return needed


def _fill(
    sweep: Sweep | Lattice,
    seats: Sequence[Seat],
    price: Price,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
    leave_empty: bool,
    reach: _Reach,
    among_equals: Price | None = None,
) -> Chain:
    kinds = list(dict.fromkeys(seats))
    which = np.array([kinds.index(seat) for seat in seats])
    best = np.full((len(seats) + 1, sweep.n + 1), np.inf)
    start = np.zeros(best.shape, dtype=np.int32)
    best[0, reach.begin] = 0.0
    peaks = best.copy()  # the largest `among_equals` of the split that is best
    fewest, seated = reach.seats_before(sweep.least_time, len(seats))
    first_end = [int(np.argmax(seated > used)) for used in range(len(seats))]  # of the stage on the next seat
    least, most = fewest.tolist(), np.minimum(seated, len(seats) - 1).tolist()
    rest = np.zeros(best.shape) if reach.rest is None else reach.rest

    def goes_on(i: int) -> bool:
        """Whether some split that ends here has another stage."""
        if least[i] > most[i]:
            return False
        if leave_empty:
            _skip(best, start, peaks, i)
        used = slice(least[i], most[i] + 1)
        lowest = (best[used, i] + rest[used, i]).min()
        return bool(lowest < inf and lowest <= reach.limit * (1 + ROUNDING))

    for row in sweep.rows(reach.seconds, goes_on):
        i, used = row.start, slice(least[row.start], most[row.start] + 1)
        before, row = best[used, i, None], row.from_end(first_end[used.start])
        offer = join(before, _priced(price, row, kinds, which[used]))
        window = slice(row.end, row.end + offer.shape[1])
        ends, begins = best[used.start + 1 : used.stop + 1, window], start[used.start + 1 : used.stop + 1, window]
        better = offer < ends
        if among_equals is not None:
            peak = np.maximum(peaks[used, i, None], _priced(among_equals, row, kinds, which[used]))
            lowest = peaks[used.start + 1 : used.stop + 1, window]
            better = (offer < ends * (1 - EQUAL)) | (offer <= ends * (1 + EQUAL)) & (peak < lowest)
            np.copyto(lowest, peak, where=better)
        np.copyto(ends, offer, where=better)
        np.copyto(begins, i, where=better)
    if leave_empty:
        _skip(best, start, peaks, sweep.n)
    return Chain(best, start)


def _priced(price: Price, row: IntervalRow, kinds: Sequence[Seat], wanted: np.ndarray) -> np.ndarray:
    """[wanted, width] the prices of a row for the wanted kinds of seats; [1, width] where all are of one kind."""
    known, places = row.intervals.prices, wanted.tolist() if len(kinds) > 1 else [0]
    for at in set(places):
        if (price, at) not in known:
            known[price, at] = price(kinds[at], row.intervals)
    if places.count(places[0]) == len(places):
        return row.of(known[price, places[0]])[None]
    return np.array([row.of(known[price, at]) for at in places])


def _skip(best: np.ndarray, start: np.ndarray, peaks: np.ndarray, position: int) -> None:
    """Leave seats empty if that is no worse: `best[k, position]` is at most `best[k - 1, position]`."""
    reached = np.minimum.accumulate(best[:, position])
    idle = reached < best[:, position]
    taken = np.maximum.accumulate(np.where(idle, 0, np.arange(len(best))))  # the last seat that is not left empty
    best[idle, position] = reached[idle]
    peaks[idle, position] = peaks[taken[idle], position]
    start[idle, position] = position
