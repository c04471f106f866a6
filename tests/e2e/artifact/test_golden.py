"""What each example becomes, as files to read: the captured graph, what each pass did, each stage file, the table.

`make golden` writes them anew; the difference is the review of a change.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from codegen.lines.stage_file import StageFile
from codegen.text.stage_source import emit
from ir.plan import plan_stages
from ir.text.printer import print_graph
from passes.cli.table import print_table
from passes.compilation.summary import summarize
from tests.support.artifacts.dumps import difference
from tests.support.checking import MODEL_FILES, captured_example
from tests.support.models.planning import machine, steps

ROOT = Path(__file__).resolve().parents[3]
STAGES = {"bert": 2, "gpt2": 2, "resnet50": 3, "t5": 3, "tied_lm": 2, "unet": 4}


def test_every_example_is_here() -> None:
    assert {*STAGES, "train_1f1b", "own_decoder"} == {*MODEL_FILES}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(STAGES, reverse=True))  # two workers: test_every_pass.py exports the first
def test_an_example(name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the files name source lines from here
    _, graph = captured_example(name)
    cluster = machine(STAGES[name])
    dump = print_graph(graph)
    golden(f"{name}/00-export.txt", f"{dump}\n")
    for number, step in enumerate(steps(graph, cluster, time_limit=20.0, size_limit=60.0), 1):
        graph, before, dump = step.graph, dump, print_graph(step.graph)
        golden(f"{name}/{number:02}-{step.name}.diff", difference(before, dump))
    plan = plan_stages(graph, cluster)
    for stage in plan.stages:
        file = StageFile(plan, stage, name)
        golden(f"{name}/{file.module}", emit(file).source)
    text = Console(file=io.StringIO(), width=100, highlight=False)
    print_table(summarize(plan, name), text)
    golden(f"{name}/table.txt", text.file.getvalue())
