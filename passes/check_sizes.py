"""check-sizes: the sizes over which the cut stays close to the best one, and those at which another is better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice, product
from time import perf_counter
from typing import ClassVar, TypeAlias

import sympy

from ir.analysis.verify import costed
from ir.cost import BetterCut
from ir.errors import CompileError
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.sizes import CallSizes, hold
from passes.cut.cut_problem import as_problem, even_share
from passes.options.options import Options
from passes.partitioners import solve
from passes.partitioners.problem import Infeasible, InvalidSplit, Objective, evaluate

_Sizes: TypeAlias = Mapping[sympy.Symbol, int]
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
        checks = _Checks(graph, cluster, perf_counter() + self.size_limit, max(self.slack, NOTABLE))
        good_for = next(filter(checks.stays_close, (_ranges(graph, reach) for reach in (1.0, 0.5, 0.25))), {})
        better = checks.better_cuts()
        return replace(graph, split=replace(graph.split, good_for=good_for, close=CLOSE, better=better))


@dataclass(frozen=True)
class _Found:
    """A cut at some sizes: whether it is known to be close to the best, and how far it is above another known one."""

    close: bool = False
    gain: float = 0.0


@dataclass
class _Checks:
    """The cut of a graph at other sizes, each looked at once; nothing is known after the deadline."""

    graph: Graph
    cluster: Cluster
    deadline: float
    least: float  # gain of another cut that is worth a word
    known: dict[tuple[int, ...], _Found] = field(default_factory=dict)

    def stays_close(self, ranges: _Ranges) -> bool:
        return all(self.at(sizes).close for sizes in _corners(ranges))

    def better_cuts(self) -> tuple[BetterCut, ...]:
        """The sizes at which another cut is better by more than `least`, those of the largest gain first."""
        calls = (call.sizes for call in self.graph.workload if len(self.graph.workload) > 1)
        places = chain(calls, _corners(_ranges(self.graph, 1.0), most=2))
        gains = {tuple(sizes.items()): self.at(sizes).gain for sizes in places}
        found = (BetterCut(dict(sizes), gain) for sizes, gain in gains.items() if gain > self.least)
        return tuple(sorted(found, key=lambda other: -other.gain))

    def at(self, sizes: _Sizes) -> _Found:
        key = tuple(sizes.values())
        if key not in self.known:
            self.known[key] = self._found(replace(self.graph, workload=(CallSizes(sizes),)))
        return self.known[key]

    def _found(self, graph: Graph) -> _Found:
        seconds = self.deadline - perf_counter()
        if seconds <= 0 or not hold(graph.guards, graph.mix[0].sizes):
            return _Found()
        problem = as_problem(graph, self.cluster, Objective(graph.split.objective), graph.split.in_flight)
        stages = problem.stages_on(graph.placement)
        try:
            value = evaluate(problem, [stages[node.stage] for node in graph.nodes])
            if problem.objective.of_loads and value <= (1 + min(CLOSE, self.least)) * even_share(problem):
                return _Found(close=True)
            best = solve(problem, seconds, enough=value / (1 + max(CLOSE, self.least)))
        except (InvalidSplit, Infeasible):  # the activations do not fit, or nothing that does was found
            return _Found()
        return _Found(value <= (1 + CLOSE) * best.lower_bound, value / best.value - 1 if best.value else 0.0)


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
