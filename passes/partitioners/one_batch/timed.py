"""Chains of calls with the seconds at which each of their values is there, grown from no unit to all.

Of two chains that have done the same units on as many devices, only one goes on if its values are all there as early:
so few are left wherever a program is narrow. What a chain must still cost on an average of paths drops the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from math import inf
from typing import NamedTuple

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.one_batch.chains import CallWeights, ChainCall, Levels, UsedDevices, backward
from passes.partitioners.one_batch.flow import ProgramPaths, Shares

_EQUAL = 1e-12  # relative to the limit: seconds that differ by less are the same


class Timed(NamedTuple):
    """The chain that ends first (none if there is none below the limit), its seconds, and a bound of all chains."""

    chain: tuple[ChainCall, ...]
    seconds: float
    bound: float


@dataclass(frozen=True, eq=False)
class _Begun:
    """Chains that have begun.

    `state`; `least` seconds that they have cost on the average of paths; `ended[chains, 2, ports]` the seconds at which
    nodes are done, and those at which a stage may begin that reads them; `before` the number of the chain without the
    last call, the class of that call, and its seconds; `ideal` the one that they have reached.
    """

    state: np.ndarray
    least: np.ndarray
    ended: np.ndarray
    before: np.ndarray
    kind: np.ndarray
    seconds: np.ndarray
    ideal: np.ndarray

    def of(self, rows: np.ndarray) -> _Begun:
        return _Begun(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[_Begun]) -> _Begun:
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class _Ports:
    """The nodes whose seconds matter: those that nodes of other units read, or none; `nodes` by port."""

    def __init__(self, table: CallTable, paths: ProgramPaths) -> None:
        unit_of = table.model.core.unit_of
        tail, head = paths.edges[unit_of[paths.edges[:, 0]] != unit_of[paths.edges[:, 1]]].T
        last = [node for node in range(paths.n) if not paths.after[node]]
        self.nodes = np.union1d(tail, last)
        self.of = np.full(paths.n, -1)
        self.of[self.nodes] = np.arange(len(self.nodes))
        readers = np.zeros((table.model.core.n, len(self.nodes)), dtype=np.float32)
        readers[unit_of[head], self.of[tail]] = 1.0
        self.done = table.ideals[:, unit_of[self.nodes]]  # [ideals, ports]
        self.read = (table.ideals @ readers).astype(np.uint16)  # [ideals, ports] the units done that read them
        self.readers = readers.sum(axis=0)

    def live(self, ideal: int) -> np.ndarray:
        """The ports of an ideal that others read."""
        return np.flatnonzero(self.done[ideal] & (self.read[ideal] < self.readers))

    def of_stages(self, begin: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
        """[begin, ports] the ports that stages read, and those that they make."""
        before = self.done[begin]
        return before & (self.read[end] > self.read[begin]), self.done[end] & ~before


class TimedChains:
    """The chains of calls `levels` that may end before `limit`, for the average of paths of `shares`.

    At most `most` chains to each ideal go on, those of the least bound; the bound of all others is `dropped`.
    """

    def __init__(
        self, table: CallTable, paths: ProgramPaths, used: UsedDevices, shares: Shares, limit: float, most: int
    ) -> None:
        self.table, self.paths, self.used, self.shares = table, paths, used, shares
        self.limit, self.most, self.dropped = limit, most, inf
        self.ports = _Ports(table, paths)
        ports = len(self.ports.nodes)
        zero = np.zeros(1, dtype=np.int64)
        self.begun = [_Begun(zero, np.zeros(1), np.zeros((1, 2, ports)), zero - 1, zero, np.zeros(1), zero)]
        self.count = 1
        self.at: dict[int, tuple[_Begun, int]] = {0: (self.begun[0], 0)}  # by ideal, with the number of the first

    def earliest(self, levels: Levels, weights: CallWeights, deadline: Deadline) -> Timed:
        """The chain that ends first, or only a bound if the time is up before."""
        last = len(self.table.ideals) - 1
        self.behind = backward(levels, weights, self.used, last + 1)
        self.reached = np.full(self.behind.shape, np.inf)  # [states, ideals] the least of the chains begun
        self.reached[0, 0] = 0.0
        for size, (level, of_level) in enumerate(zip(levels, weights, strict=True)):
            if deadline.passed():
                return Timed((), inf, min(self.limit, self.dropped, self._beyond(levels[size:], weights[size:])))
            for end, groups in self._ending(level, of_level).items():
                self._go_on(end, [part for calls, some in groups for part in self._extended(end, calls, some)])
        if last not in self.at:
            return Timed((), inf, min(self.limit, self.dropped))
        found, first = self.at[last]
        seconds = found.ended[:, 0].max(axis=1)
        best = int(seconds.argmin())
        bound = min(float(seconds[best]), self.dropped)
        return Timed(tuple(self._back(first + best))[::-1], float(seconds[best]), bound)

    def _beyond(self, levels: Levels, weights: CallWeights) -> float:
        """The least bound of the chains begun, which go on by one of these calls."""
        least = [
            self._least(calls) + weight
            for level, of_level in zip(levels, weights, strict=True)
            for calls, weight in zip(level, of_level, strict=True)
        ]
        return float(np.concatenate(least).min(initial=np.inf))

    def _least(self, calls: CallList) -> np.ndarray:
        """[calls] the least bound of the chains begun that go on by each, without its own weight."""
        before, after = self.used.before[calls.kind][:, None], self.used.after[calls.kind][:, None]
        return (self.reached[before, calls.begin] + self.behind[after, calls.end]).min(axis=0, initial=np.inf)

    def _ending(
        self, level: Sequence[CallList], weights: Sequence[np.ndarray]
    ) -> dict[int, list[tuple[CallList, np.ndarray]]]:
        """The calls of a level that go on from chains begun, and their weights, by the ideal at which they end."""
        found: dict[int, list[tuple[CallList, np.ndarray]]] = {}
        for calls, weight in zip(level, weights, strict=True):
            kept = self._least(calls) + weight < self.limit
            calls, weight = calls.only(kept), weight[kept]
            ends, starts = np.unique(calls.end, return_index=True)
            for end, start, stop in zip(ends.tolist(), starts, [*starts[1:], len(calls.end)], strict=False):
                span = slice(start, stop)
                found.setdefault(end, []).append((calls.only(span), weight[span]))
        return found

    def _extended(self, end: int, calls: CallList, weights: np.ndarray) -> Iterator[_Begun]:
        """The chains that one more call makes, of the calls of a class that end at an ideal."""
        old = [self.at[begin] for begin in calls.begin.tolist()]
        chains = _Begun.joined([part for part, _ in old])
        counts = [len(part.state) for part, _ in old]
        call = np.repeat(np.arange(len(old)), counts)
        number = np.concatenate([first + np.arange(count) for (_, first), count in zip(old, counts, strict=True)])
        state, least = self.used.next[calls.kind][chains.state], chains.least + weights[call]
        rows = np.flatnonzero((state >= 0) & (least + self.behind[state, end] < self.limit))
        if not len(rows):
            return
        call, ended = call[rows], chains.ended[rows]
        if len(calls.units):
            for i in range(len(calls.units)):
                ended[call == i] = self._alone(ended[call == i], calls.kind, int(calls.units[i]))
        else:
            read, made = self.ports.of_stages(calls.begin, end)
            start = np.where(read[call], ended[:, 1], 0.0).max(axis=1)
            ended = np.where(made[call][:, None], (start + calls.seconds[call])[:, None, None], ended)
        same = np.full(len(rows), calls.kind), calls.seconds[call], np.full(len(rows), end)
        yield _Begun(state[rows], least[rows], ended, number[rows], *same)

    def _alone(self, ended: np.ndarray, kind: int, unit: int) -> np.ndarray:
        """[chains, 2, ports] the seconds after a unit whose nodes run alone."""
        done: dict[int, np.ndarray] = {}
        port, times, zero = self.ports.of, self.shares.times[kind], np.zeros(len(ended))
        for node in sorted(self.table.model.core.nodes[unit], key=self.paths.rank.__getitem__):
            before = (done[other] if other in done else ended[:, 0, port[other]] for other in self.paths.before[node])
            done[node] = np.maximum.reduce([zero, *before]) + times[node]
        for node, seconds in done.items():
            if port[node] >= 0:
                ended[:, 0, port[node]], ended[:, 1, port[node]] = seconds, seconds - self.shares.credit[node]
        return ended

    def _go_on(self, end: int, parts: Sequence[_Begun]) -> None:
        """Keep those of new chains to an ideal that go on."""
        if not parts:
            return
        found = _Begun.joined(parts)
        spent = self.shares.spent(self.ports.nodes, self.table.ideals[end], found.ended[:, 0])
        least = np.maximum(found.least, spent)
        bound = least + self.behind[found.state, end]
        order = np.flatnonzero(bound < self.limit)
        order = order[np.lexsort((found.state[order], bound[order]))]
        kept = self._not_worse(order, found.state, self._matters(end, found.ended))
        if len(kept) > self.most:
            self.dropped = min(self.dropped, float(bound[kept[self.most]]))
            kept = kept[: self.most]
        if kept:
            found.least[:] = least
            self.begun.append(found.of(np.array(kept)))
            self.at[end] = self.begun[-1], self.count
            self.count += len(kept)
            np.minimum.at(self.reached[:, end], self.begun[-1].state, self.begun[-1].least)

    def _matters(self, end: int, ended: np.ndarray) -> np.ndarray:
        """[chains, ...] the seconds on which what follows depends: those of open values, and the last of all others."""
        live = self.ports.live(end)
        lent = live[self.shares.credit[self.ports.nodes[live]] > 0]
        return np.concatenate((ended[:, 0, live], ended[:, 1, lent], ended[:, 0].max(axis=1)[:, None]), axis=1)

    def _not_worse(self, order: np.ndarray, states: np.ndarray, seconds: np.ndarray) -> list[int]:
        """Those of the chains `order` than which none before is as good, up to one more than go on."""
        kept: list[int] = []
        best = np.empty((self.most + 1, seconds.shape[1]))
        as_few = np.empty((self.most + 1, len(self.used.replaces)), dtype=bool)
        for i in order.tolist():
            count = len(kept)
            as_good = (best[:count] <= seconds[i] + _EQUAL * self.limit).all(axis=1)
            if not (as_good & as_few[:count, states[i]]).any():
                best[count], as_few[count] = seconds[i], self.used.replaces[states[i]]
                kept.append(i)
            if len(kept) > self.most:
                break
        return kept

    def _back(self, number: int) -> Iterator[ChainCall]:
        """The calls of a chain, the last one first."""
        every = _Begun.joined(self.begun)
        while every.before[number] >= 0:
            before, kind, seconds = every.before[number], every.kind[number], every.seconds[number]
            yield ChainCall(int(kind), int(every.ideal[before]), int(every.ideal[number]), float(seconds))
            number = int(before)
