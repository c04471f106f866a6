"""Averages of paths through a program, and the share of them that goes through each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

import numpy as np

from passes.partitioners.one_batch.call_table import CallList, CallTable
from passes.partitioners.problem.model import Problem

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
    """The seconds of calls times the share of a flow's paths that goes through each."""

    def __init__(self, table: CallTable, paths: ProgramPaths, flow: Flow) -> None:
        core, ideals = table.model.core, table.ideals
        self.table = table
        tail, head = core.unit_of[paths.edges].T
        used = np.flatnonzero((flow.edges > 0) & (tail != head))
        self.crossing = (ideals[:, tail[used]] & ~ideals[:, head[used]]) * flow.edges[used].astype(table.exactly)
        self.missing = (~ideals[:, head[used]]).astype(table.exactly)
        self.late = (~ideals @ np.bincount(core.unit_of, flow.begins, core.n)).astype(table.exactly)
        self.early = (ideals @ np.bincount(core.unit_of, flow.ends, core.n)).astype(table.exactly)
        times = np.array([node.time for node in core.problem.nodes], dtype=float).T
        times[np.isinf(times)] = 0.0  # on devices without such a call
        self.times = times[[c.kind for c in table.model.classes]]  # [classes, nodes]
        self.single = [np.bincount(core.unit_of, flow.nodes * row, core.n) for row in self.times]
        self.flow, self.edges = flow, paths.edges

    def of(self, calls: CallList) -> np.ndarray:
        """[calls] their seconds on the paths, on average."""
        if len(calls.units):
            return self.single[calls.kind][calls.units]
        begin, at = np.unique(calls.begin, return_inverse=True)
        end, to = np.unique(calls.end, return_inverse=True)
        return calls.seconds * self.between(begin, end)[at, to]

    def between(self, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        """[begin, end] the share of the paths that go through the units between two ideals, never quite 0."""
        live = np.flatnonzero(self.crossing[begin].any(axis=0))
        around = self.crossing[np.ix_(begin, live)] @ self.missing[np.ix_(end, live)].T
        around += self.early[begin, None] + self.late[end]
        return np.clip(1.0 - around, _NONE, 1.0, out=around)

    def spent(self, inside: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """[chains] seconds that the paths have taken on average up to an ideal, of the nodes `inside[nodes]`.

        `ended[chains, nodes]` are the seconds at which these are done.
        """
        tail, head = self.edges.T
        crossing = np.flatnonzero(inside[tail] & ~inside[head] & (self.flow.edges > 0))
        ends = np.flatnonzero(inside & (self.flow.ends > 0))
        return ended[:, tail[crossing]] @ self.flow.edges[crossing] + ended[:, ends] @ self.flow.ends[ends]
