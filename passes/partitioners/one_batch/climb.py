"""Splits improved step by step: units beside another call move there, alone or with the chain behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from random import Random

import numpy as np

from passes.partitioners.deadline import Deadline
from passes.partitioners.problem.model import Problem
from passes.partitioners.search.first_cut import Cut, better, valued
from passes.partitioners.units import Core

_LENGTHS = (1, 2, 3, 6, 9)  # of the chains that move
_KICKS = (1, 2, 3, 4)  # moves at random from the best cut, before a climb
_TRIES = 20  # of a move at random
_TRIALS = 40  # moves that are tried, for each node of a program
_MOST_TRIALS = 3_000_000  # the same times the nodes of a large one, each of which takes the longer: a few seconds


def climbed(core: Core, cut: Cut, deadline: Deadline, *, kicks: bool = False) -> Cut:
    """A cut near this one from which no move leads to a better one, or the best that is found in time.

    With `kicks`, climbs begin anew from near the best one for a few seconds.
    """
    climb = _Climb(core, deadline, min(_TRIALS * len(cut.stages), _MOST_TRIALS // len(cut.stages)))
    best, ends = climb.up(list(cut.stages))
    while kicks and climb.trials > 0 and not deadline.passed():
        stages, later = climb.up(climb.kicked(best))
        if later < ends:
            best, ends = stages, later
    return better(cut, valued(core.problem, best)) or cut


class _Climb:
    """Climbs by moves in an order at random; `trials` are left."""

    def __init__(self, core: Core, deadline: Deadline, trials: int) -> None:
        self.clock, self.moves, self.random = _Clock(core.problem), _Moves(core), Random(0)
        self.edges, self.deadline, self.trials = core.edges.tolist(), deadline, trials

    def up(self, stages: list[int]) -> tuple[list[int], tuple[float, float]]:
        """The stages from which no move leads to better ones, and how they end."""
        ends = before = self.clock.ends(stages)
        while True:
            self.random.shuffle(self.edges)
            for a, b in self.edges:
                for trial in self.moves.between(a, b, stages):
                    if self.deadline.passed():
                        return stages, ends
                    self.trials -= 1
                    if (later := self.clock.ends(trial)) < ends:
                        stages, ends = trial, later
            if ends == before:
                return stages, ends
            before = ends

    def kicked(self, stages: list[int]) -> list[int]:
        """Stages a few moves away."""
        self.trials -= _TRIES  # though there may be no move
        for _ in range(self.random.choice(_KICKS) if self.edges else 0):
            for a, b in self.random.choices(self.edges, k=_TRIES):
                near = [trial for trial in self.moves.between(a, b, stages) if self.clock.ends(trial)[0] < inf]
                if near:
                    stages = self.random.choice(near)
                    break
        return stages


class _Moves:
    """The moves of units across an edge."""

    def __init__(self, core: Core) -> None:
        self.nodes = core.nodes
        self.after, self.before = core.neighbours(), core.neighbours(reverse=True)

    def between(self, a: int, b: int, stages: list[int]) -> Iterator[list[int]]:
        """The stages of the nodes after each of the moves."""
        home, there = stages[self.nodes[a][0]], stages[self.nodes[b][0]]
        if home == there:
            return
        for first, to, ahead in ((b, home, self.after), (a, there, self.before)):
            chain = [first]
            while len(chain) < _LENGTHS[-1] and len(ahead[chain[-1]]) == 1:
                chain.append(ahead[chain[-1]][0])
            for length in _LENGTHS:
                if length <= len(chain):
                    trial = stages.copy()
                    for node in (node for unit in chain[:length] for node in self.nodes[unit]):
                        trial[node] = to
                    yield trial


class _Clock:
    """The time of one batch of splits, as `evaluate` has it where links are alike, and quickly."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.count = problem, len(problem.devices)
        self.alone = [device.node_by_node for device in problem.devices]
        self.free = [device.free_transfers for device in problem.devices]
        self.times = [[node.time[device.kind] for node in problem.nodes] for device in problem.devices]
        self.memory = np.array([device.memory for device in problem.devices]) * (1 + 1e-9)
        self.values = [(v.producer, v.consumers, problem.link.seconds(v.bytes)) for v in problem.values]
        self.bytes = np.array([node.bytes for node in problem.nodes])
        for weight in problem.weights:
            self.bytes[list(weight.readers[:1])] += weight.bytes

    def ends(self, stages: Sequence[int]) -> tuple[float, float]:
        """The second at which the last call ends, and the sum of those of all; infinite if the split breaks a rule."""
        if (np.bincount(stages, self.bytes, self.count) > self.memory).any():
            return inf, inf
        call = [self.count + node if self.alone[stage] else stage for node, stage in enumerate(stages)]
        lasts = [0.0] * (self.count + len(stages))
        for node, stage in enumerate(stages):
            lasts[call[node]] += self.times[stage][node]
        before: dict[int, set[int]] = {one: set() for one in call}
        for producer, consumers, seconds in self.values:
            home = call[producer]
            readers = {call[node] for node in consumers}
            readers.discard(home)
            for reader in readers:
                before[reader].add(home)
                if reader < self.count and not self.free[reader]:
                    lasts[reader] += seconds
            if readers and self.problem.via_host and home < self.count and not self.free[home]:
                lasts[home] += seconds
        return _ends(before, lasts)


def _ends(before: dict[int, set[int]], lasts: Sequence[float]) -> tuple[float, float]:
    after: dict[int, list[int]] = {call: [] for call in before}
    waiting = {call: len(others) for call, others in before.items()}
    for call, others in before.items():
        for other in others:
            after[other].append(call)
    ready = [call for call, count in waiting.items() if not count]
    ended: dict[int, float] = {}
    while ready:
        call = ready.pop()
        ended[call] = max((ended[other] for other in before[call]), default=0.0) + lasts[call]
        for other in after[call]:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    if len(ended) < len(before):
        return inf, inf
    return max(ended.values(), default=0.0), sum(ended.values())
