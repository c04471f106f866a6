"""check-sizes: the sizes over which the cut stays close to the best one, and those at which another is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice, product
from math import inf
from typing import ClassVar, TypeAlias, TypeVar

import sympy

from ir.analysis.verify import costed
from ir.cost import BetterCut
from ir.errors import CompileError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.process.shared_work import shared_calls
from ir.sizes import CallSizes, hold
from passes.cut.cut_problem import Wiring, as_problem, even_share
from passes.options.options import Options
from passes.partitioners.deadline import Deadline
from passes.partitioners.problem import Infeasible, InvalidSplit, Objective, Problem, evaluate
from passes.partitioners.problem.copies import inline
from passes.partitioners.rivals import Rivals

_Sizes: TypeAlias = Mapping[sympy.Symbol, int]
_Answer = TypeVar("_Answer")
_Ranges: TypeAlias = Mapping[sympy.Symbol, tuple[int, int]]

CLOSE = 0.05  # of the best value
OPEN = 8  # times the size that the graph is cut for: the largest where none is declared
NOTABLE = 0.01  # of the best value: another cut that is better by less is not worth a word


@dataclass(frozen=True)
class CheckSizes:
    """Ranges of sizes for which the cut is good: at each corner it fits, its value within `CLOSE` of the bound there.

    The declared ranges are tried first, then smaller and smaller ones around the sizes that the graph is cut for.
    Another cut is better at a corner of the declared ranges (of more than two, the least or the largest sizes), or for
    a call of a mix, if its value is lower by more than the slack.
    """

    size_limit: float = Options.size_limit
    slack: float = Options.slack

    name: ClassVar = "check-sizes"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def __post_init__(self) -> None:
        if not self.size_limit >= 0:  # nan, too
            raise CompileError(f"size-limit is {self.size_limit}; it must be a number of seconds, 0 or more")

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        if not graph.hints or len(cluster.devices) == 1:
            return graph
        least = max(self.slack, NOTABLE)
        checks = _Checks(graph, cluster, Wiring.of(graph), Deadline(self.size_limit), least)
        questions = (checks.good_for, checks.better_cuts)
        good_for, better = shared_calls(questions, len(graph.nodes))
        return replace(graph, split=replace(graph.split, good_for=good_for, close=CLOSE, better=better))


@dataclass(frozen=True)
class _AtSizes:
    """The cut of a graph at some sizes: its value, that of an even share of the work, and what else could be cut."""

    value: float
    even: float
    rivals: Rivals

    @property
    def excess(self) -> float:
        """The value as a multiple of an even share; infinite where that is no bound."""
        return self.value / self.even if self.even else inf

    def is_unbeaten(self) -> bool:
        """Whether no other cut is found that is better by more than `CLOSE`."""
        return self.rivals.found_below(self.value / (1 + CLOSE)) == inf

    def is_close(self) -> bool:
        """Whether no other cut can be better by more than `CLOSE`."""
        return self.rivals.none_below(self.value / (1 + CLOSE))

    def gain(self, least: float) -> float:
        """The share by which the value is above that of another cut; 0 where none is found with more than `least`."""
        if self.value <= (1 + least) * self.even:
            return 0.0
        other = self.rivals.found_below(self.value / (1 + least))
        return max(0.0, self.value / other - 1) if other else 0.0


@dataclass
class _Checks:
    """The cut of a graph at other sizes, each looked at once; nothing is known after the deadline."""

    graph: Graph
    cluster: Cluster
    wiring: Wiring
    deadline: Deadline
    least: float  # gain of another cut that is worth a word
    known: dict[tuple[int, ...], _AtSizes | None] = field(default_factory=dict)

    def good_for(self) -> _Ranges:
        """The widest of the ranges over which the cut stays close to the best; empty if there are none."""
        return next(filter(self._stays_close, (_ranges(self.graph, reach) for reach in (1.0, 0.5, 0.25))), {})

    def _stays_close(self, ranges: _Ranges) -> bool:
        """Whether the cut is good at each corner.  What takes least time comes first, and the corner most in doubt."""
        corners: list[_AtSizes] = []
        for sizes in reversed([*_corners(ranges)]):  # the largest fits last
            at = self._at(sizes)
            if at is None:
                return False
            corners.append(at)
        doubtful = sorted((at for at in corners if at.excess > 1 + CLOSE), key=lambda at: -at.excess)
        questions = (*(at.is_unbeaten for at in doubtful), *(at.is_close for at in doubtful))
        return all(self._ask(question, False) for question in questions)

    def better_cuts(self) -> tuple[BetterCut, ...]:
        """The sizes at which another cut is better by more than `least`, those of the largest gain first."""
        calls = (call.sizes for call in self.graph.workload if len(self.graph.workload) > 1)
        places = chain(calls, _corners(_ranges(self.graph, 1.0), most=2))
        gains = {tuple(sizes.items()): self._gain(sizes) for sizes in places}
        found = (BetterCut(dict(sizes), gain) for sizes, gain in gains.items() if gain > self.least)
        return tuple(sorted(found, key=lambda other: -other.gain))

    def _gain(self, sizes: _Sizes) -> float:
        at = self._at(sizes)
        return 0.0 if at is None else self._ask(lambda: at.gain(self.least), 0.0)

    def _ask(self, question: Callable[[], _Answer], unknown: _Answer) -> _Answer:
        """The answer to a question; `unknown` where nothing fits or the time is up."""
        try:
            return unknown if self.deadline.passed() else question()
        except Infeasible:
            return unknown

    def _at(self, sizes: _Sizes) -> _AtSizes | None:
        """The cut at some sizes; None where it does not fit, or the time is up."""
        if self.deadline.passed():
            return None
        key = tuple(sizes.values())
        if key not in self.known:
            self.known[key] = self._looked_at(replace(self.graph, workload=(CallSizes(sizes),)))
        return self.known[key]

    def _looked_at(self, graph: Graph) -> _AtSizes | None:
        if not hold(graph.guards, graph.mix[0].sizes):
            return None
        split = graph.split
        problem = as_problem(graph, self.cluster, Objective(split.objective), split.in_flight, self.wiring)
        as_cut, problem = self._as_cut(problem), inline(problem)
        stages = problem.stages_on(graph.placement)
        try:
            value = evaluate(as_cut, [stages[node.stage] for node in graph.nodes])
        except InvalidSplit:  # the activations do not fit
            return None
        even = even_share(problem) if problem.objective.of_loads else 0.0
        return _AtSizes(value, even, Rivals(problem, self.deadline))

    def _as_cut(self, problem: Problem) -> Problem:
        """The problem with the groups that a cut must obey, which may part a weight's computation from its reader."""
        groups = self.wiring.groups
        if any(problem.nodes[node].cheap for pair in self.wiring.of_weights for node in pair):
            return replace(problem, groups=groups)  # of which other nodes are copied
        whole = inline(problem)
        return replace(whole, groups=whole.groups[: len(groups)])


def _ranges(graph: Graph, reach: float) -> _Ranges:
    """Ranges around the sizes of a graph's workload: the declared ones at a `reach` of 1, its own at 0."""
    ranges = {}
    for symbol in graph.hints:
        low, high = graph.ranges[symbol]
        calls = sorted((call.sizes for call in graph.mix), key=lambda sizes: sizes[symbol])
        least, most = calls[0][symbol], calls[-1][symbol]
        start = round(least * (low / least) ** reach)
        end = round(most * ((high or OPEN * most) / most) ** reach)
        ranges[symbol] = _allowed(symbol, start, calls[0], graph), _allowed(symbol, end, calls[-1], graph)
    return ranges


def _allowed(symbol: sympy.Symbol, end: int, sizes: _Sizes, graph: Graph) -> int:
    """The size nearest to `end`, between it and that of `sizes`, that the guards allow."""
    own = sizes[symbol]
    way = range(end, own, 1 if end < own else -1)
    return next((size for size in islice(way, 1024) if hold(graph.guards, {**sizes, symbol: size})), own)


def _corners(ranges: _Ranges, most: int = 3) -> Iterator[_Sizes]:
    """All corners of the ranges; of more ranges than `most` only the smallest and the largest."""
    if len(ranges) > most:
        yield {symbol: low for symbol, (low, _) in ranges.items()}
        yield {symbol: high for symbol, (_, high) in ranges.items()}
        return
    for sizes in product(*ranges.values()):
        yield dict(zip(ranges, sizes, strict=True))
