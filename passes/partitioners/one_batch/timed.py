"""Chains of calls with the seconds at which each of their values is there, grown from no unit to all.

Of two chains that have done the same units on as many devices, only one goes on if its values are all there as early:
so few are left wherever a program is narrow. What a chain must still cost on an average of paths drops the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.one_batch.chains import ChainCall, UsedDevices, backward
from passes.partitioners.one_batch.flow import ProgramPaths, Shares

_EQUAL = 1e-12  # relative to the limit: seconds that differ by less are the same


class Timed(NamedTuple):
    """The chain that ends first (none if there is none below the limit), its seconds, and a bound of all chains."""

    chain: tuple[ChainCall, ...]
    seconds: float
    bound: float


@dataclass(frozen=True, eq=False)
class _Begun:
    """Chains to one ideal.

    `states[chains]`; `least[chains]` seconds that they have cost on the average of paths; `ended[chains, nodes]` the
    seconds at which nodes are done; `came` the ideal and the place of the chain before the last call, and that call.
    """

    states: np.ndarray
    least: np.ndarray
    ended: np.ndarray
    came: tuple[tuple[int, int, ChainCall], ...] = ()


@dataclass(frozen=True, eq=False)
class _Calls:
    """Calls of a class that end at one ideal, with their weights on the average of paths."""

    calls: CallList
    weights: np.ndarray


@dataclass(eq=False)
class TimedChains:
    """The chains of calls `levels` that may end before `limit`, for the average of paths of `shares`.

    At most `most` chains to each ideal go on, those of the least bound; the bound of all others holds for them.
    """

    table: CallTable
    paths: ProgramPaths
    used: UsedDevices
    shares: Shares
    levels: Sequence[Sequence[CallList]]
    limit: float
    most: int
    dropped: float = inf  # the least bound of the chains that were dropped for their number
    begun: dict[int, _Begun] = field(default_factory=dict)

    def earliest(self, deadline: Deadline) -> Timed:
        """The chain that ends first; without a bound if the time is up before."""
        core, last = self.table.model.core, len(self.table.ideals) - 1
        self.inside = self.table.ideals[:, core.unit_of]
        self.behind = backward(self.levels, self.shares.of, self.used, last + 1)
        self.reached = np.full(self.behind.shape, np.inf)  # [states, ideals] the least of the chains begun
        self.begun[0] = _Begun(np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros((1, len(core.unit_of))))
        self.reached[0, 0] = 0.0
        for level in self.levels:
            if deadline.passed():
                return Timed((), inf, 0.0)
            for end, groups in self._ending(level).items():
                if (grown := self._grown(end, groups)) is not None:
                    self.begun[end] = grown
                    np.minimum.at(self.reached, (grown.states, end), grown.least)
        if last not in self.begun:
            return Timed((), inf, min(self.limit, self.dropped))
        seconds = self.begun[last].ended.max(axis=1)
        best = int(seconds.argmin())
        return Timed(tuple(self._back(last, best))[::-1], float(seconds[best]), min(float(seconds[best]), self.dropped))

    def _ending(self, level: Sequence[CallList]) -> dict[int, list[_Calls]]:
        """The calls of a level that go on from chains begun, by the ideal at which they end."""
        found: dict[int, list[_Calls]] = {}
        for calls in level:
            weights = self.shares.of(calls)
            before, after = self.used.before[calls.kind][:, None], self.used.after[calls.kind][:, None]
            total = self.reached[before, calls.begin] + self.behind[after, calls.end]
            kept = total.min(axis=0, initial=np.inf) + weights < self.limit
            calls, weights = calls.only(kept), weights[kept]
            ends, starts = np.unique(calls.end, return_index=True)
            for end, start, stop in zip(ends.tolist(), starts, [*starts[1:], len(calls.end)], strict=False):
                span = slice(start, stop)
                found.setdefault(end, []).append(_Calls(calls.only(span), weights[span]))
        return found

    def _grown(self, end: int, groups: Sequence[_Calls]) -> _Begun | None:
        """The chains to an ideal that go on."""
        parts = [part for group in groups for part in self._extended(end, group)]
        if not parts:
            return None
        states, least, ended = (np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS)
        came = [one for part in parts for one in part.came]
        least = np.maximum(least, self.shares.spent(self.inside[end], ended))
        bound = least + self.behind[states, end]
        order = np.flatnonzero(bound < self.limit)
        order = order[np.lexsort((states[order], bound[order]))]
        kept = self._not_worse(order, states, self._matters(end, ended))
        if len(kept) > self.most:
            self.dropped = min(self.dropped, float(bound[kept[self.most]]))
            kept = kept[: self.most]
        return _Begun(states[kept], least[kept], ended[kept], tuple(came[i] for i in kept)) if kept else None

    def _extended(self, end: int, group: _Calls) -> Iterator[_Begun]:
        """The chains that one more call makes, for each call of a group."""
        calls = group.calls
        for i, begin in enumerate(calls.begin.tolist()):
            old = self.begun[begin]
            state = self.used.next[calls.kind][old.states]
            least = old.least + group.weights[i]
            rows = np.flatnonzero((state >= 0) & (least + self.behind[state, end] < self.limit))
            if len(rows):
                call = ChainCall(calls.kind, begin, end, float(calls.seconds[i]))
                ended = self._ended(old.ended[rows], call, single=bool(len(calls.units)))
                yield _Begun(state[rows], least[rows], ended, tuple((begin, row, call) for row in rows.tolist()))

    def _ended(self, ended: np.ndarray, call: ChainCall, *, single: bool) -> np.ndarray:
        """[chains, nodes] the seconds at which nodes are done, after one more call."""
        nodes = np.flatnonzero(self.inside[call.end] & ~self.inside[call.begin])
        if single:
            times = self.shares.times[call.kind]
            for node in sorted(nodes.tolist(), key=self.paths.rank.__getitem__):
                ended[:, node] = ended[:, self.paths.before[node]].max(axis=1, initial=0.0) + times[node]
        else:
            read = np.unique(self.paths.edges[np.isin(self.paths.edges[:, 1], nodes), 0])
            read = read[self.inside[call.begin, read]]
            ended[:, nodes] = (ended[:, read].max(axis=1, initial=0.0) + call.seconds)[:, None]
        return ended

    def _matters(self, end: int, ended: np.ndarray) -> np.ndarray:
        """[chains, ...] the seconds on which what follows depends: those of open values, and the last of all others."""
        tail, head = self.paths.edges.T
        inside = self.inside[end]
        live = np.unique(tail[inside[tail] & ~inside[head]])
        return np.concatenate((ended[:, live], ended.max(axis=1)[:, None]), axis=1)

    def _not_worse(self, order: np.ndarray, states: np.ndarray, seconds: np.ndarray) -> list[int]:
        """Those of the chains `order` than which none before is as good, up to one more than go on."""
        kept: list[int] = []
        for i in order.tolist():
            as_few = self.used.replaces[states[kept], states[i]]
            if not (as_few & (seconds[kept] <= seconds[i] + _EQUAL * self.limit).all(axis=1)).any():
                kept.append(i)
            if len(kept) > self.most:
                break
        return kept

    def _back(self, ideal: int, row: int) -> Iterator[ChainCall]:
        while ideal:
            ideal, row, call = self.begun[ideal].came[row]
            yield call


_FIELDS = ("states", "least", "ended")
