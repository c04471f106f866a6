"""What a second plan of a model takes, whose export is kept, and what plans for six machines take."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.planning.test_plan_memory import ENTRIES, ROOT
from tests.benchmarks.report import Stopwatch, Table, timed

MACHINES = "h100x4,h100x8,h200x4,l4x8,l4x16,a100x8"


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    table = Table(
        "second-plan",
        "pytest tests/benchmarks/planning/test_second_plan.py -s",
        ("Llama-3-70B, from config.json", "asked", "wall s", "CPU s"),
        complete=3,
    )
    yield table
    table.publish()


def stagecut(folder: Path, *arguments: str) -> tuple[Stopwatch, str]:
    """A run of the command in a process of its own: its seconds, and what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "STAGECUT_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "stagecut", *arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with timed() as watch:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    watch.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return watch, done.stdout


def test_a_second_plan_and_a_comparison(tmp_path: Path, table: Table) -> None:
    ENTRIES["Llama-3-70B"].config.save_pretrained(tmp_path / "llama")
    plan = ("compile", "llama", "--weights", "none", "--cluster", "h100x8", "-o", "plan")
    first, _ = stagecut(tmp_path, *plan)
    second, _ = stagecut(tmp_path, *plan)
    comparison, printed = stagecut(tmp_path, "compare", "llama", "--clusters", MACHINES)
    row = "{:.1f}".format
    table.add("a first plan, on 8 H100", "20 s", row(first.wall), row(first.cpu))
    table.add("a second plan", "15 s", row(second.wall), row(second.cpu))
    table.add("plans for six machines", "twice a plan", row(comparison.wall), row(comparison.cpu))
    assert all(f"\n {machine} " in printed for machine in MACHINES.split(","))
    assert "no plan" not in printed
    assert second.cpu < first.cpu * 0.8  # its export is a third of a first plan
    assert comparison.cpu < 2 * first.cpu
