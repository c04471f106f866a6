"""The cheapest chains of calls from no unit to all, and all that are cheaper than a limit.

A chain has used so many devices of each class (its state) and done an ideal. What remains depends on these two alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from passes.partitioners.one_batch.call_table import CallList
from passes.partitioners.proof.relaxed import Relaxed

CallWeights = Callable[[CallList], np.ndarray]


class ChainCall(NamedTuple):
    """A call of a chain: the class of its device, the ideals between which it runs, and its seconds."""

    kind: int
    begin: int
    end: int
    seconds: float


@dataclass(frozen=True)
class UsedDevices:
    """The states of a chain: how many devices of each class it has used; the first one is none, the last one all.

    `before[kind]` and `after[kind]` are states between which one more call on that class leads.
    """

    count: int
    before: tuple[np.ndarray, ...]
    after: tuple[np.ndarray, ...]
    final: np.ndarray

    @classmethod
    def of(cls, model: Relaxed) -> UsedDevices:
        sizes = [1 if c.node_by_node else len(c.devices) + 1 for c in model.classes]
        grid = np.arange(np.prod(sizes)).reshape(sizes)
        before, after = [], []
        for axis, c in enumerate(model.classes):
            along = np.moveaxis(grid, axis, 0)
            before.append((along if c.node_by_node else along[:-1]).ravel())
            after.append((along if c.node_by_node else along[1:]).ravel())
        every = model.core.problem.every_device
        return cls(grid.size, tuple(before), tuple(after), grid.ravel()[-1:] if every else grid.ravel())


def forward(levels: Sequence[Sequence[CallList]], weights: CallWeights, used: UsedDevices, ideals: int) -> np.ndarray:
    """[states, ideals] the least sum of weights of a chain from no unit to each ideal."""
    best = np.full((used.count, ideals), np.inf)
    best[0, 0] = 0.0
    for calls in (calls for level in levels for calls in level):
        extend(best, calls, weights, used)
    return best


def extend(best: np.ndarray, calls: CallList, weights: CallWeights, used: UsedDevices) -> None:
    """Lower `best[states, ideals]` where chains get there by one more of these calls."""
    offers = best[used.before[calls.kind][:, None], calls.begin] + weights(calls)
    _take(best, used.after[calls.kind], calls.end, offers)


def backward(levels: Sequence[Sequence[CallList]], weights: CallWeights, used: UsedDevices, ideals: int) -> np.ndarray:
    """[states, ideals] the least sum of weights of a chain from each ideal to all units."""
    best = np.full((used.count, ideals), np.inf)
    best[used.final, -1] = 0.0
    for calls in (calls for level in reversed(levels) for calls in level):
        extend_back(best, calls, weights, used)
    return best


def extend_back(best: np.ndarray, calls: CallList, weights: CallWeights, used: UsedDevices) -> None:
    """Lower `best[states, ideals]` where chains to all units begin with one of these calls."""
    by_begin = np.argsort(calls.begin, kind="stable")
    offers = best[used.after[calls.kind][:, None], calls.end[by_begin]] + weights(calls)[by_begin]
    _take(best, used.before[calls.kind], calls.begin[by_begin], offers)


def _take(best: np.ndarray, states: np.ndarray, ideals: np.ndarray, offers: np.ndarray) -> None:
    """Lower `best[states, ideals]` to what is offered; `ideals[offers]` ascend, with repetitions."""
    if not len(ideals):
        return
    starts = np.flatnonzero(np.append(True, ideals[1:] != ideals[:-1]))
    place = np.ix_(states, ideals[starts])
    best[place] = np.minimum(best[place], np.minimum.reduceat(offers, starts, axis=1))


class ChainsBelow:
    """The chains of a sum of weights below `limit`, from the table `best` of `forward`; the cheapest one first.

    `complete` says whether all have been listed, after at most `budget` steps.
    """

    def __init__(
        self,
        levels: Sequence[Sequence[CallList]],
        weights: CallWeights,
        used: UsedDevices,
        best: np.ndarray,
        budget: int,
    ) -> None:
        self.used, self.best, self.budget, self.complete = used, best, budget, False
        self.into: dict[int, list[tuple[CallList, np.ndarray, slice]]] = {}
        for calls in (calls for level in levels for calls in level):
            weight = weights(calls)
            ends, starts = np.unique(calls.end, return_index=True)
            for end, start, stop in zip(ends.tolist(), starts, [*starts[1:], len(calls.end)], strict=False):
                self.into.setdefault(end, []).append((calls, weight, slice(start, stop)))

    def listed(self, limit: float) -> Iterator[tuple[ChainCall, ...]]:
        """The chains, by depth-first search from the end."""
        last = self.best.shape[1] - 1
        ends = [(float(self.best[s, last]), int(s)) for s in self.used.final if self.best[s, last] < limit]
        stack = [(state, last, 0.0, ()) for _, state in sorted(ends, reverse=True)]
        while stack and self.budget > 0:
            self.budget -= 1
            state, at, rest, chain = stack.pop()
            if not at:
                yield chain
                continue
            found = self._into(state, at, rest, limit)
            stack += [(before, call.begin, cost, (call, *chain)) for _, before, cost, call in found]
        self.complete = not stack

    def _into(self, state: int, at: int, rest: float, limit: float) -> list[tuple[float, int, float, ChainCall]]:
        """The calls that may come before the rest of a chain, the most promising one last."""
        found = []
        for calls, weight, span in self.into.get(at, ()):
            before = self.used.before[calls.kind][self.used.after[calls.kind] == state]
            if not len(before):
                continue
            total = self.best[before[0], calls.begin[span]] + weight[span] + rest
            for i in np.flatnonzero(total < limit) + span.start:
                call = ChainCall(calls.kind, int(calls.begin[i]), at, float(calls.seconds[i]))
                found.append((float(total[i - span.start]), int(before[0]), rest + float(weight[i]), call))
        return sorted(found, reverse=True)
