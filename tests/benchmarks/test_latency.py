"""The time of one batch: how good our splits are, and how well that is proven."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from passes.partitioners import solve
from passes.partitioners.problem import Device, Objective, Problem
from tests.benchmarks.programs import program
from tests.benchmarks.report import Stopwatch, Table, timed

INSTANCES = sorted((Path(__file__).parents[1] / "data" / "partition" / "latency").glob("*.json"))
MODELS = {"T5-11B": 8, "SD-UNet": 1, "Mixtral-8x7B": 32}  # GiB of each of four devices, too few for all on three
LIMIT = 60.0


@pytest.fixture(scope="module")
def latency() -> Iterator[Table]:
    columns = ("instance", "nodes", "devices", "value", "bound", "gap", "wall s", "CPU s", "target")
    command = "pytest tests/benchmarks/test_latency.py -s"
    table = Table("latency", command, columns, complete=len(INSTANCES) + len(MODELS))
    yield table
    table.publish()


@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.stem)
def test_published_instances_are_within_one_percent(path: Path, latency: Table) -> None:
    problem = Problem.read(path, "latency")
    devices = f"{len(problem.devices) - 1} and CPUs"
    assert _solved(path.stem, problem, devices, "gap 1%", latency) <= 0.01


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, latency: Table) -> None:
    devices = (Device(memory=MODELS[name] * 2.0**30),) * 4
    problem = replace(program(name).problem, objective=Objective.latency, devices=devices, every_device=True)
    assert _solved(name, problem, f"4 of {MODELS[name]} GiB", "", latency) < 1


def _solved(name: str, problem: Problem, devices: str, target: str, table: Table) -> float:
    """The gap that is left."""
    with timed() as watch:
        found = solve(problem, LIMIT)
    scale, unit = (1.0, "") if problem.via_host else (1e3, " ms")
    numbers = (f"{scale * found.value:.6g}{unit}", f"{scale * found.lower_bound:.6g}{unit}")
    gap = "0, proven" if found.optimal else f"{found.gap:.2%}"
    met = _verdict(target, found.gap <= 0.01, watch)
    table.add(name, f"{len(problem.nodes):,}", devices, *numbers, gap, f"{watch.wall:.1f}", f"{watch.cpu:.1f}", met)
    return found.gap


def _verdict(target: str, reached: bool, watch: Stopwatch) -> str:
    if not target:
        return "–"
    within = "met" if watch.wall <= LIMIT else "met in CPU time" if watch.cpu <= 2 * LIMIT else "missed"
    return f"{target} in {LIMIT:.0f} s: {within if reached else 'missed'}"
