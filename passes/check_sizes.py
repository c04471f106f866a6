"""check-sizes: the ranges of sizes over which the cut stays close to the best one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from time import perf_counter
from typing import ClassVar, TypeAlias

import sympy

from ir.analysis.verify import costed
from ir.graph import Graph
from ir.machine.cluster import Cluster
from ir.sizes import hold
from passes.cut.cut_problem import as_problem
from passes.options.options import Options
from passes.partitioners import solve
from passes.partitioners.problem import Infeasible, InvalidSplit, Objective, evaluate

_Ranges: TypeAlias = Mapping[sympy.Symbol, tuple[int, int]]

CLOSE = 0.05  # of the best value
OPEN = 8  # times the example's size: the largest where none is declared


@dataclass(frozen=True)
class CheckSizes:
    """A cut is good for ranges of sizes if at each corner it fits, with a value within 5 % of the proven bound there.

    The declared ranges are tried first, then smaller and smaller ones around the example's sizes.
    """

    size_limit: float = Options.size_limit

    name: ClassVar = "check-sizes"
    requires: ClassVar = (costed,)
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        deadline = perf_counter() + self.size_limit
        for reach in (1.0, 0.5, 0.25) if graph.hints and len(cluster.devices) > 1 else ():
            ranges = _ranges(graph, reach)
            if all(_stays_close(replace(graph, hints=sizes), cluster, deadline) for sizes in _corners(ranges)):
                return replace(graph, split=replace(graph.split, good_for=ranges))
        return graph


def _ranges(graph: Graph, reach: float) -> _Ranges:
    """Ranges around the example's sizes: the declared ones at a `reach` of 1, empty ones at 0, geometric between."""
    ranges = {}
    for symbol, size in graph.hints.items():
        low, high = graph.ranges[symbol]
        ends = (low, high if high is not None else OPEN * size)
        ranges[symbol] = tuple(_allowed(symbol, round(size * (end / size) ** reach), graph) for end in ends)
    return ranges


def _allowed(symbol: sympy.Symbol, end: int, graph: Graph) -> int:
    """The size nearest to `end`, between it and the example's, that the guards allow."""
    example = graph.hints[symbol]
    way = range(end, example, 1 if end < example else -1)
    return next((size for size in islice(way, 1024) if hold(graph.guards, {**graph.hints, symbol: size})), example)


def _corners(ranges: _Ranges) -> Iterator[dict[sympy.Symbol, int]]:
    """All corners of the ranges; of more than three ranges only the smallest and the largest."""
    if len(ranges) > 3:
        yield {symbol: low for symbol, (low, _) in ranges.items()}
        yield {symbol: high for symbol, (_, high) in ranges.items()}
        return
    for sizes in product(*ranges.values()):
        yield dict(zip(ranges, sizes, strict=True))


def _stays_close(graph: Graph, cluster: Cluster, deadline: float) -> bool:
    """Whether the cut of a graph is close to the best at its hints; False if that is not known by the deadline."""
    seconds = deadline - perf_counter()
    if seconds <= 0 or not hold(graph.guards, graph.hints):
        return False
    problem = as_problem(graph, cluster, Objective(graph.split.objective), graph.split.in_flight)
    stages = problem.stages_on(graph.placement)
    try:
        value = evaluate(problem, [stages[node.stage] for node in graph.nodes])
        best = solve(problem, seconds)
    except (InvalidSplit, Infeasible):  # the activations do not fit, or nothing that does was found
        return False
    return value <= (1 + CLOSE) * best.lower_bound
