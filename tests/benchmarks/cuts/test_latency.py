"""The time of one batch: how good our splits are, and how well that is proven."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from passes.partitioners import solve
from passes.partitioners.problem import Device, Objective, Problem
from tests.benchmarks.cuts.programs import program
from tests.benchmarks.cuts.published_like import Document, bert_operators, inception_layers, published, resnet_operators
from tests.benchmarks.report import Stopwatch, Table, timed

INSTANCES = sorted((Path(__file__).parents[2] / "data" / "partition" / "latency").glob("*.json"))
SIMILAR: dict[str, Callable[[], Document]] = {
    "bert12_operator, by repetition": lambda: bert_operators(12),
    "bert6_operator": lambda: published("bert6_operator", 600 * 2.0**20),
    "like resnet50_operator, batches of 32": lambda: resnet_operators(32, 600 * 2.0**20, seed=1),
    "like resnet50_operator, batches of 8": lambda: resnet_operators(8, 600 * 2.0**20, seed=2),
    "like inceptionv3_layer, batches of 128": lambda: inception_layers(128, 2.0**31, seed=1),
    "like inceptionv3_layer, batches of 128, 1 GiB": lambda: inception_layers(128, 2.0**30, seed=3),
    "like inceptionv3_layer, batches of 64": lambda: inception_layers(64, 2.0**31, seed=2),
}
MODELS = {"T5-11B": 8, "SD-UNet": 1, "Mixtral-8x7B": 32}  # GiB of each of four devices, too few for all on three
LIMIT = 60.0


@pytest.fixture(scope="module")
def latency() -> Iterator[Table]:
    columns = ("instance", "nodes", "devices", "value", "bound", "gap", "wall s", "CPU s", "target")
    command = "pytest tests/benchmarks/cuts/test_latency.py -s"
    table = Table("latency", command, columns, complete=len(INSTANCES) + len(SIMILAR) + len(MODELS))
    yield table
    table.publish()


@pytest.mark.parametrize("path", INSTANCES, ids=lambda path: path.stem)
def test_published_instances_are_within_one_percent(path: Path, latency: Table) -> None:
    problem = Problem.read(path, "latency")
    devices = f"{len(problem.devices) - 1} and CPUs"
    assert _solved(path.stem, problem, devices, "gap 1%", latency) <= 0.01


@pytest.mark.parametrize("name", SIMILAR)
def test_similar_instances_are_within_five_percent(name: str, latency: Table, tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text(json.dumps(SIMILAR[name]()))
    problem = Problem.read(tmp_path / "instance.json", "latency")
    assert _solved(name, problem, f"{len(problem.devices) - 1} and CPUs", "gap 1%", latency) <= 0.05


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
