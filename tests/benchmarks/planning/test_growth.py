"""How the time to solve grows with the nodes of a program and with the stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from passes.partitioners import solve
from passes.partitioners.problem import Solution, evaluate
from tests.benchmarks.planning.synthetic import transformer
from tests.benchmarks.report import DOCS, Stopwatch, Table, timed

NODES, STAGES = (1_000, 5_000, 20_000), (4, 16, 64)
LIMIT = 60.0
SIZES = tuple(product(NODES, STAGES))

Point = tuple[int, int, Stopwatch, Solution]


@pytest.fixture(scope="module")
def growth() -> Iterator[list[Point]]:
    """Points to be filled in; at last a table, and a plot if none is missing."""
    points: list[Point] = []
    yield points
    columns = ("nodes", "stages", "value", "gap", "wall s", "CPU s")
    table = Table("growth", "pytest tests/benchmarks/planning/test_growth.py -s", columns, complete=len(SIZES))
    for nodes, stages, watch, found in points:
        gap = "0, proven" if found.optimal else f"{found.gap:.2%}"
        size = (f"{nodes:,}", str(stages), f"{1e3 * found.value:.3f} ms")
        table.add(*size, gap, f"{watch.wall:.1f}", f"{watch.cpu:.1f}")
    table.publish()
    if len(points) == len(SIZES):
        plot(points)


@pytest.mark.parametrize(("nodes", "stages"), SIZES)
def test_time_to_solve(nodes: int, stages: int, growth: list[Point]) -> None:
    problem = transformer(nodes, stages)
    with timed() as watch:
        found = solve(problem, LIMIT)
    growth.append((len(problem.nodes), stages, watch, found))
    assert evaluate(problem, found.stage_of) == pytest.approx(found.value)
    assert found.gap <= 0.05


def plot(points: Sequence[Point]) -> None:
    """CPU seconds over nodes, a line for each number of stages."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
        for stages in STAGES:
            line = [(nodes, watch.cpu) for nodes, k, watch, _ in points if k == stages]
            axes.loglog(*zip(*line, strict=True), marker="o", label=f"{stages} stages")
        axes.set(xlabel="nodes", ylabel="CPU seconds until solved")
        axes.set_xticks(sorted({nodes for nodes, *_ in points}), minor=False)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(DOCS / "growth.svg", metadata={"Date": None})
        plt.close(figure)
