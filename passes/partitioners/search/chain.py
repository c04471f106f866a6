"""The best cut of one order of units into a pipeline of seats: a dynamic program over prefixes.

`best[k, j]` is the least value of the first j units on the first k seats. The last of those stages begins at
some i <= j, so

    best[k, j] = min over i of  max(best[k - 1, i], load[k](i, j))      for a bottleneck,
    best[k, j] = min over i of  best[k - 1, i] + price[k](i, j)         for a sum.

Rows of intervals come in order of i, so that all seats advance at once. Stages whose compute alone exceeds a guess
of the value are not considered: a split whose value is within the guess is the best of all. If there is none,
the guess doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from passes.partitioners.search.lattice import Lattice
from passes.partitioners.search.seats import Seat
from passes.partitioners.search.sweep import IntervalRow, Sweep

Price = Callable[[Seat, IntervalRow], np.ndarray]


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


def bottleneck(sweep: Sweep, seats: Sequence[Seat], *, overlap: bool, leave_empty: bool, known: float) -> Chain:
    """The split of least bottleneck along the sweep's order, exact up to the value `known`."""
    enough = min(float(sweep.least_time[-1]), known)
    guess = 1.5 * float(sweep.least_time[-1]) / len(seats)
    while True:
        chain = bottleneck_within(sweep, seats, min(guess, known), overlap=overlap, leave_empty=leave_empty)
        if chain.value() <= guess or guess >= enough:
            return chain
        guess *= 2


def bottleneck_within(
    sweep: Sweep, seats: Sequence[Seat], reach: float, *, overlap: bool, leave_empty: bool, start: int = 0
) -> Chain:
    """The splits of least bottleneck from position `start` on, exact up to the value `reach`."""

    def load(seat: Seat, row: IntervalRow) -> np.ndarray:
        return seat.load(row, overlap)

    return _fill(sweep, seats, load, np.maximum, leave_empty, reach, start)


def cheapest(sweep: Sweep | Lattice, seats: Sequence[Seat], price: Price, *, leave_empty: bool, reach: float) -> Chain:
    """The split of least summed `price`; a stage computes for at most `reach` seconds."""
    return _fill(sweep, seats, price, np.add, leave_empty, reach, 0)


def _fill(
    sweep: Sweep | Lattice,
    seats: Sequence[Seat],
    price: Price,
    join: Callable[[np.ndarray, np.ndarray], np.ndarray],
    leave_empty: bool,
    reach: float,
    begin: int,
) -> Chain:
    kinds = list(dict.fromkeys(seats))
    which = np.array([kinds.index(seat) for seat in seats])
    best = np.full((len(seats) + 1, sweep.n + 1), np.inf)
    start = np.zeros(best.shape, dtype=np.int32)
    best[0, begin] = 0.0
    for row in sweep.rows(reach, begin):
        i = row.start
        if leave_empty:
            _skip(best, start, i)
        prices = np.array([price(seat, row) for seat in kinds])[which]
        offer = join(best[:-1, i, None], prices)
        window = slice(i + 1, i + 1 + offer.shape[1])
        better = offer < best[1:, window]
        best[1:, window][better] = offer[better]
        start[1:, window][better] = i
    if leave_empty:
        _skip(best, start, sweep.n)
    return Chain(best, start)


def _skip(best: np.ndarray, start: np.ndarray, position: int) -> None:
    """Leave seats empty if that is no worse: `best[k, position]` is at most `best[k - 1, position]`."""
    reached = np.minimum.accumulate(best[:, position])
    idle = reached < best[:, position]
    best[idle, position] = reached[idle]
    start[idle, position] = position
