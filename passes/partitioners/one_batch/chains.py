"""The cheapest chains of calls from no unit to all.

A chain has used so many devices of each class (its state) and done an ideal. What remains depends on these two alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from passes.partitioners.one_batch.call_table import CallList
from passes.partitioners.proof.relaxed import Relaxed

Levels: TypeAlias = Sequence[Sequence[CallList]]
"""The calls that end at the ideals of one unit, of two, and so on: a list for each class of devices."""

CallWeights: TypeAlias = Sequence[Sequence[np.ndarray]]
"""A weight of each call of `Levels`."""


class ChainCall(NamedTuple):
    """A call of a chain: the class of its device, the ideals between which it runs, and its seconds."""

    kind: int
    begin: int
    end: int
    seconds: float


@dataclass(frozen=True)
class UsedDevices:
    """The states of a chain: how many devices of each class it has used; the first one is none, the last one all.

    `before[kind]` and `after[kind]` are states between which one more call on that class leads, `next[kind][states]`
    the same as a table, -1 if there is none. `replaces[states, states]`: the first goes on wherever the second does.
    """

    count: int
    before: tuple[np.ndarray, ...]
    after: tuple[np.ndarray, ...]
    final: np.ndarray
    next: np.ndarray
    replaces: np.ndarray

    @classmethod
    def of(cls, model: Relaxed) -> UsedDevices:
        sizes = [1 if c.node_by_node else len(c.devices) + 1 for c in model.classes]
        grid = np.arange(np.prod(sizes)).reshape(sizes)
        before, after = [], []
        for axis, c in enumerate(model.classes):
            along = np.moveaxis(grid, axis, 0)
            before.append((along if c.node_by_node else along[:-1]).ravel())
            after.append((along if c.node_by_node else along[1:]).ravel())
        following = np.full((len(sizes), grid.size), -1)
        for kind, states in enumerate(before):
            following[kind, states] = after[kind]
        every = model.core.problem.every_device
        counts = np.array(np.unravel_index(grid.ravel(), sizes)).T
        fewer = np.eye(grid.size, dtype=bool) if every else (counts[:, None] <= counts).all(axis=2)
        final = grid.ravel()[-1:] if every else grid.ravel()
        return cls(grid.size, tuple(before), tuple(after), final, following, fewer)


def forward(levels: Levels, weights: CallWeights, used: UsedDevices, ideals: int) -> np.ndarray:
    """[states, ideals] the least sum of weights of a chain from no unit to each ideal."""
    best = np.full((used.count, ideals), np.inf)
    best[0, 0] = 0.0
    for level, of_level in zip(levels, weights, strict=True):
        for calls, weight in zip(level, of_level, strict=True):
            extend(best, calls, weight, used)
    return best


def extend(best: np.ndarray, calls: CallList, weight: np.ndarray, used: UsedDevices) -> None:
    """Lower `best[states, ideals]` where chains get there by one more of these calls."""
    offers = best[used.before[calls.kind][:, None], calls.begin] + weight
    _take(best, used.after[calls.kind], calls.end, offers)


def backward(levels: Levels, weights: CallWeights, used: UsedDevices, ideals: int) -> np.ndarray:
    """[states, ideals] the least sum of weights of a chain from each ideal to all units."""
    best = np.full((used.count, ideals), np.inf)
    best[used.final, -1] = 0.0
    for level, of_level in zip(reversed(levels), reversed(weights), strict=True):
        for calls, weight in zip(level, of_level, strict=True):
            extend_back(best, calls, weight, used)
    return best


def extend_back(best: np.ndarray, calls: CallList, weight: np.ndarray, used: UsedDevices) -> None:
    """Lower `best[states, ideals]` where chains to all units begin with one of these calls."""
    by_begin = np.argsort(calls.begin, kind="stable")
    offers = best[used.after[calls.kind][:, None], calls.end[by_begin]] + weight[by_begin]
    _take(best, used.before[calls.kind], calls.begin[by_begin], offers)


def _take(best: np.ndarray, states: np.ndarray, ideals: np.ndarray, offers: np.ndarray) -> None:
    """Lower `best[states, ideals]` to what is offered; `ideals[offers]` ascend, with repetitions."""
    if not len(ideals):
        return
    starts = np.flatnonzero(np.append(True, ideals[1:] != ideals[:-1]))
    place = np.ix_(states, ideals[starts])
    best[place] = np.minimum(best[place], np.minimum.reduceat(offers, starts, axis=1))


def cheapest_chain(
    levels: Levels, weights: CallWeights, used: UsedDevices, best: np.ndarray, sizes: np.ndarray
) -> tuple[ChainCall, ...]:
    """The chain of the least sum of weights, from the table `best` of `forward`; `sizes[ideals]` are their units."""
    at = best.shape[1] - 1
    state = int(used.final[best[used.final, at].argmin()])
    chain: list[ChainCall] = []
    while at:
        level = sizes[at] - 1
        state, call = min(_into(levels[level], weights[level], used, best, state, at))[1:]
        chain.append(call)
        at = call.begin
    return tuple(chain[::-1])


def _into(
    level: Sequence[CallList], weights: Sequence[np.ndarray], used: UsedDevices, best: np.ndarray, state: int, at: int
) -> Iterator[tuple[float, int, ChainCall]]:
    """The cheapest last call of a chain to an ideal and a state, of each class: the sum, the state before, the call."""
    for calls, weight in zip(level, weights, strict=True):
        span = slice(*np.searchsorted(calls.end, (at, at + 1)))
        for before in used.before[calls.kind][used.after[calls.kind] == state].tolist():
            if span.start < span.stop:
                total = best[before, calls.begin[span]] + weight[span]
                i = int(total.argmin())
                begin, seconds = calls.begin[span][i], calls.seconds[span][i]
                yield float(total[i]), before, ChainCall(calls.kind, int(begin), at, float(seconds))
