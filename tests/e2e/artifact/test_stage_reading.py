"""Stage files of every example and of a Llama: short functions, valid types, the names of the source, a line a node."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from codegen.lines.stage_file import StageFile
from codegen.text.stage_source import Emitted, emit
from ir.capture import capture
from ir.graph import Call, Graph
from ir.plan import StagePlan, plan_stages
from tests.support.checking import captured_example
from tests.support.models.planning import machine, planned
from tests.support.seeds import made_once

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = {"bert": 2, "gpt2": 2, "llama": 4, "resnet50": 3, "t5": 3, "tied_lm": 2, "unet": 4}
LONGEST = {"bert": 250, "gpt2": 250, "llama": 200, "resnet50": 250, "t5": 280, "tied_lm": 250, "unet": 250}

pytestmark = pytest.mark.slow


def llama() -> Graph:
    """A stage file is as long for 80 layers as for these: those that do not stand alone are one loop."""
    sizes: dict[str, Any] = dict(
        hidden_size=256, intermediate_size=896, num_attention_heads=8, num_key_value_heads=2, vocab_size=4000
    )
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=14, use_cache=False, **sizes)).eval()
    inputs = {"input_ids": torch.randint(4000, (2, 32)), "attention_mask": torch.ones(2, 32, dtype=torch.int64)}
    return capture(model, (), inputs, dynamic_shapes={name: {0: "batch", 1: "seq"} for name in inputs})


@made_once
def plan(name: str) -> StagePlan:
    graph = llama() if name == "llama" else captured_example(name)[1]
    cluster = machine(EXAMPLES[name])
    return plan_stages(planned(graph, cluster, time_limit=20.0), cluster)


@made_once
def files(name: str) -> tuple[tuple[StageFile, Emitted], ...]:
    stages = [StageFile(plan(name), stage, name) for stage in plan(name).stages]
    return tuple((stage, emit(stage)) for stage in stages)


@pytest.mark.parametrize("name", EXAMPLES)
def test_files_and_functions_are_short(name: str) -> None:
    for _, emitted in files(name):
        functions = [n for n in ast.walk(ast.parse(emitted.source)) if isinstance(n, ast.FunctionDef)]
        assert max((f.end_lineno or 0) - f.lineno + 1 for f in functions) <= 60
        assert emitted.source.count("\n") <= LONGEST[name]


def test_they_are_clean_to_ruff_and_pyright(tmp_path: Path) -> None:
    for name in EXAMPLES:
        (tmp_path / name).mkdir()
        for stage, emitted in files(name):
            (tmp_path / name / stage.module).write_text(emitted.source)
    for command in (
        ["ruff", "check", "--isolated", "--select=E,F,I,UP,B", "--line-length=120", "."],
        ["ruff", "format", "--isolated", "--check", "--line-length=120", "."],
        ["pyright", "--pythonpath", sys.executable, "."],
    ):
        done = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_node_has_its_line(name: str) -> None:
    """A line of a `forward` that is no comment; in a repeated class, nodes of every layer share one."""
    for stage, emitted in files(name):
        lines = emitted.source.splitlines()
        for node in stage.stage.graph.nodes:
            text = lines[emitted.lines[node] - 1]
            assert text.startswith("        ")
            assert not text.lstrip().startswith(("#", "del "))


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_are_those_of_the_source(name: str) -> None:
    """No variable is called after an operator and a number, as `add_37` is."""
    for stage, emitted in files(name):
        made = {n.id for n in ast.walk(ast.parse(emitted.source)) if isinstance(n, ast.Name)}
        operators = {str(n.op.overloadpacket).split(".")[-1] for n in stage.stage.graph.nodes if isinstance(n, Call)}
        numbered = {n for n in made if re.fullmatch(r"[a-z_]+_\d\d+", n)}
        assert not {n for n in numbered if n.rstrip("_0123456789") in operators}


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert", "llama"])
def test_layers_are_a_loop(name: str) -> None:
    assert any(re.search(r"^        for \w+ in self\.", emitted.source, re.MULTILINE) for _, emitted in files(name))
