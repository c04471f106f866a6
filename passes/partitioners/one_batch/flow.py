"""Averages of paths through a program, and the share of them that goes through each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

import numpy as np

from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.problem.model import Problem

_GATHER = 20  # times longer that a product takes for single calls than for all between the same ideals
_AT_ONCE = 2_000_000  # numbers
_NONE = 1e-30  # a share that adds nothing, and leaves infinite seconds infinite


@dataclass(frozen=True, eq=False)
class Flow:
    """A weighted average of paths: the share of them on each edge, through each node, and begun and ended at each."""

    edges: np.ndarray
    nodes: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    def mixed(self, other: Flow, share: float) -> Flow:
        """The average with another, which has this share of it."""
        return Flow(
            (1 - share) * self.edges + share * other.edges,
            (1 - share) * self.nodes + share * other.nodes,
            (1 - share) * self.begins + share * other.begins,
            (1 - share) * self.ends + share * other.ends,
        )


class ProgramPaths:
    """The paths of a problem's nodes along its values. `edges[edges, 2]` are (producer, consumer)."""

    def __init__(self, problem: Problem) -> None:
        self.n = len(problem.nodes)
        pairs = dict.fromkeys((value.producer, node) for value in problem.values for node in value.consumers)
        self.number = {pair: i for i, pair in enumerate(pairs)}
        self.edges = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
        self.before: list[list[int]] = [[] for _ in range(self.n)]
        self.after: list[list[int]] = [[] for _ in range(self.n)]
        for a, b in pairs:
            self.before[b].append(a)
            self.after[a].append(b)
        self.order = tuple(TopologicalSorter(dict(enumerate(self.before))).static_order())
        self.rank = {node: place for place, node in enumerate(self.order)}

    def longest(self, entering: Sequence[float], own: Sequence[float]) -> tuple[float, list[int]]:
        """The length and the nodes of the longest path: `entering[edges]` seconds, `own[nodes]` of its first node."""
        length, came = [0.0] * self.n, [-1] * self.n
        for node in self.order:
            offers = [(length[a] + entering[self.number[a, node]], a) for a in self.before[node]]
            length[node], came[node] = max(offers, default=(own[node], -1))
        path = [max(range(self.n), key=length.__getitem__)]
        longest = length[path[0]]
        while came[path[-1]] >= 0:
            path.append(came[path[-1]])
        path.reverse()
        while self.after[path[-1]]:
            path.append(self.after[path[-1]][0])
        return longest, path

    def along(self, path: Sequence[int]) -> Flow:
        """The flow along one path."""
        flow = Flow(np.zeros(len(self.edges)), np.zeros(self.n), np.zeros(self.n), np.zeros(self.n))
        flow.edges[[self.number[pair] for pair in pairwise(path)]] = 1.0
        flow.nodes[list(path)] = flow.begins[path[0]] = flow.ends[path[-1]] = 1.0
        return flow


class Shares:
    """The seconds of calls times the share of a flow's paths that goes through each.

    A stage does not wait for `credit[nodes]` of the seconds of a node that runs alone (see `easier`).
    """

    def __init__(self, table: CallTable, paths: ProgramPaths, flow: Flow, credit: np.ndarray) -> None:
        core, ideals = table.model.core, table.ideals
        self.table = table
        tail, head = core.unit_of[paths.edges].T
        used = np.flatnonzero((flow.edges > 0) & (tail != head))
        self.crossing = (ideals[:, tail[used]] & ~ideals[:, head[used]]) * flow.edges[used].astype(table.exactly)
        self.missing = (~ideals[:, head[used]]).astype(table.exactly)
        self.lent = credit[paths.edges[used, 0]].astype(table.exactly)
        self.late = (~ideals @ np.bincount(core.unit_of, flow.begins, core.n)).astype(table.exactly)
        self.early = (ideals @ np.bincount(core.unit_of, flow.ends, core.n)).astype(table.exactly)
        times = np.array([node.time for node in core.problem.nodes], dtype=float).T
        times[np.isinf(times)] = 0.0  # on devices without such a call
        self.times = times[[c.kind for c in table.model.classes]]  # [classes, nodes]
        self.single = [np.bincount(core.unit_of, flow.nodes * row, core.n) for row in self.times]
        self.flow, self.edges, self.unit_of, self.credit = flow, paths.edges, core.unit_of, credit

    def of(self, calls: CallList) -> np.ndarray:
        """[calls] their seconds on the paths, on average."""
        if len(calls.units):
            return self.single[calls.kind][calls.units]
        begin, at = np.unique(calls.begin, return_inverse=True)
        end, to = np.unique(calls.end, return_inverse=True)
        if len(at) * _GATHER > len(begin) * len(end):
            share, less = self._between(begin, end)
            return calls.seconds * share[at, to] - less[at, to]
        live = np.flatnonzero(self.crossing[begin].any(axis=0))
        lent = self.lent[live]
        around, less = self.early[calls.begin] + self.late[calls.end], np.zeros(len(at))
        leaving, missing = self.crossing[np.ix_(begin, live)], self.missing[np.ix_(end, live)]
        for some in np.array_split(np.arange(len(at)), 1 + len(at) * len(live) // _AT_ONCE):
            left, lacks = leaving[at[some]], missing[to[some]]
            around[some] += np.einsum("ij,ij->i", left, lacks)
            less[some] = (left * (1.0 - lacks)) @ lent
        return calls.seconds * np.clip(1.0 - around, _NONE, 1.0) - less

    def stages(self, begin: np.ndarray, end: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """[begin, end] the same for stages between two ideals, of so many seconds."""
        share, less = self._between(begin, end)
        share *= seconds
        share -= less
        return share

    def _between(self, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[begin, end] the share of the paths that go through the units between two ideals, never quite 0.

        And the credit that paths have on average where they enter these units.
        """
        live = np.flatnonzero(self.crossing[begin].any(axis=0))
        leaving, missing = self.crossing[np.ix_(begin, live)], self.missing[np.ix_(end, live)]
        around = leaving @ missing.T
        around += self.early[begin, None] + self.late[end]
        lent = np.flatnonzero(self.lent[live])
        less = (leaving[:, lent] * self.lent[live[lent]]) @ (1.0 - missing[:, lent]).T
        return np.clip(1.0 - around, _NONE, 1.0, out=around), less

    def spent(self, nodes: np.ndarray, ideal: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """[chains] seconds that the paths have taken on average up to an ideal, `ideal[units]`.

        `ended[chains, nodes]` are the seconds at which these nodes are done.
        """
        inside, (tail, head) = ideal[self.unit_of], self.edges.T
        crossing = np.flatnonzero(inside[tail] & ~inside[head] & (self.flow.edges > 0))
        share = np.bincount(tail[crossing], self.flow.edges[crossing], len(inside)) + inside * self.flow.ends
        return ended @ share[nodes]
