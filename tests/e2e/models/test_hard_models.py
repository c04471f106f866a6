"""Models that torch.export does not take as they are, cut and run from their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.checking import Call, check_artifact
from tests.support.models.hard_models import HARD, WIDTH
from tests.support.running.commands import Shell
from tests.support.running.forked_jobs import python

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"x": {0: "batch", 1: "seq"}}


@pytest.mark.parametrize("name", HARD)
def test_stages_of_a_hard_model_return_what_it_does(name: str, tmp_path: Path) -> None:
    model = HARD[name].make().eval()
    calls = [Call.of(torch.randn(batch, seq, WIDTH)) for batch, seq in ((2, 4), (3, 5), (1, 8))]
    plan = check_artifact(model, calls, tmp_path / "out", SIZES, 2)
    assert [bool(stage.graph.nodes) for stage in plan.stages] == [True, True]


MODEL_FILE = """
import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x) if x.sum() > 0 else x


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), Gate(), nn.Linear(8, 8)).eval()


def example_inputs():
    return (torch.ones(2, 8),)
"""

RUN = """
import sys, torch
from runtime import Pipeline
with Pipeline.load(sys.argv[1], devices=["cpu"]) as pipe:
    torch.save(pipe(torch.ones(2, 8)), sys.argv[2])
"""


def test_a_class_of_the_model_file_comes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process runs the stages from their folder, without the model file's own."""
    shell = Shell.open(tmp_path, monkeypatch, capsys)
    shell.write({"gated.py": MODEL_FILE})
    ended = shell.run("gated.py -o out --stages 2 --verify")
    assert ended.status == 0, ended.err
    assert "1 is kept whole in one stage: it decides by the values of a tensor" in " ".join(ended.err.split())
    (tmp_path / "gated.py").unlink()
    assert (tmp_path / "out" / "gated.py").exists()
    ended = python(tmp_path, "-c", RUN, tmp_path / "out", tmp_path / "y.pt")
    assert ended.status == 0, ended.err
    scope: dict[str, Any] = {}
    exec(MODEL_FILE, scope)
    assert torch.equal(torch.load(tmp_path / "y.pt"), scope["model"]()(torch.ones(2, 8)))
