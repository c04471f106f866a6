"""How good our cuts are, beside those that people make today and beside the best there can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

import pytest

from passes.partitioners import solve
from passes.partitioners.problem import Problem, Solution
from tests.benchmarks.cuts.baselines import BASELINES, NoCut, bottleneck
from tests.benchmarks.cuts.models import MODELS
from tests.benchmarks.cuts.programs import Program, program
from tests.benchmarks.report import Stopwatch, Table, timed

INSTANCES = sorted((Path(__file__).parents[2] / "data" / "partition").glob("*.json"))
WHERE = "pytest tests/benchmarks/cuts/test_cut_quality.py -s"


@dataclass(frozen=True)
class Cut:
    """A model, into how many stages, and the targets: seconds to a first answer, and to a gap (0: a proof)."""

    model: str
    stages: int
    gap: float = 0.0
    seconds: float = inf
    first: float = inf

    def targets(self, found: Solution, first: Stopwatch, whole: Stopwatch) -> Iterator[str]:
        if self.first < inf:
            yield f"first answer in {verdict(self.first, first)}"
        if self.seconds < inf:
            reached = found.gap <= self.gap if self.gap else found.optimal
            asked = f"gap {self.gap:.0%}" if self.gap else "proven"
            yield f"{asked} in {verdict(self.seconds, whole) if reached else f'{self.seconds:.0f} s: missed'}"


def verdict(seconds: float, watch: Stopwatch) -> str:
    """Whether it took no longer than that; an idle machine takes about the CPU time."""
    met = "met" if watch.wall <= seconds else "met in CPU time" if watch.cpu <= seconds else "missed"
    return f"{seconds:.0f} s: {met}"


CUTS = (
    Cut("Llama-3-70B", 8, seconds=10),
    Cut("Llama-3-70B", 64, seconds=60),
    Cut("Mixtral-8x7B", 8),
    Cut("Mixtral-8x7B", 16),
    Cut("T5-11B", 4, seconds=30),
    Cut("T5-11B", 8, gap=0.01, seconds=60),
    Cut("DeepSeek-V3", 16, gap=0.02, seconds=60, first=10),
    Cut("SD-UNet", 4, seconds=30),
    Cut("SD-UNet", 8, gap=0.01, seconds=60),
    *(Cut(name, 4) for name in MODELS if name.startswith("example-")),
)


@pytest.fixture(scope="module")
def quality() -> Iterator[Table]:
    columns = ("model", "nodes", "stages", "stagecut", *BASELINES, "gap", "first answer", "wall s", "CPU s", "target")
    table = Table("cut-quality", WHERE, columns, complete=len(CUTS))
    yield table
    table.publish()


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: f"{cut.model}-{cut.stages}")
def test_never_worse_than_the_cuts_of_today(cut: Cut, quality: Table) -> None:
    model = program(cut.model)
    problem = model.onto(cut.stages)
    with timed() as first_watch:
        first = solve(problem, time_limit=0.0)
    with timed() as watch:
        found = solve(problem, time_limit=60.0)
    others = {name: _baseline(name, model, cut.stages) for name in BASELINES}
    quality.add(
        cut.model,
        f"{len(problem.nodes):,}",
        str(cut.stages),
        f"{1e3 * found.value:.3f} ms",
        *(_beside(found.value, other) for other in others.values()),
        "0, proven" if found.optimal else f"{found.gap:.2%}",
        f"{first_watch.wall:.1f} s, {first.value / found.value - 1:+.2%}",
        f"{watch.wall:.1f}",
        f"{watch.cpu:.1f}",
        "; ".join(cut.targets(found, first_watch, watch)) or "–",
    )
    assert all(found.value <= other * (1 + 1e-9) for other in others.values())


def _baseline(name: str, model: Program, stages: int) -> float:
    try:
        return bottleneck(model, stages, BASELINES[name](model, stages))
    except NoCut:
        return inf


def _beside(best: float, other: float) -> str:
    return "none" if other == inf else f"{1e3 * other:.3f} ms ({other / best - 1:+.0%})"


@pytest.fixture(scope="module")
def published() -> Iterator[Table]:
    columns = ("instance", "nodes", "devices", "value", "gap", "wall s", "CPU s", "target")
    table = Table("published", WHERE, columns, complete=len(INSTANCES) + 1)
    yield table
    table.publish()


def test_published_instances_are_solved_to_proof(published: Table) -> None:
    total = Stopwatch()
    for path in INSTANCES:
        problem = Problem.read(path)
        with timed() as watch:
            found = solve(problem)
        total = Stopwatch(total.wall + watch.wall, total.cpu + watch.cpu)
        size = (f"{len(problem.nodes):,}", str(len(problem.devices)), f"{found.value:.6g}")
        proof = "0, proven" if found.optimal else f"{found.gap:.2%}"
        published.add(path.stem, *size, proof, f"{watch.wall:.2f}", f"{watch.cpu:.2f}", "proven")
        assert found.optimal
    published.add("all", "", "", "", "", f"{total.wall:.2f}", f"{total.cpu:.2f}", verdict(3, total))
