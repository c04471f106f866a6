"""`stagecut recut`: another cut of an artifact, without the model and its checkpoint."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codegen.artifact import cut_again
from codegen.artifact.graph_file import GRAPH
from ir.errors import CompileError, OutputError, SourceError
from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.support.running.commands import Shell


class Tower(nn.Module):
    """A tied weight, a constant, a state, channels-last weights, and two programs over them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        self.layers[5].weight = self.layers[0].weight
        self.mix, self.table = nn.Conv2d(4, 4, 3, padding=1), torch.arange(16.0)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        x = self.mix(x.view(-1, 4, 2, 2)).flatten(1) + self.table
        for layer in self.layers:
            x = layer(x).relu() + self.calls
        return x if shift is None else x + shift


X = torch.arange(32.0).view(2, 16) / 16
OPTIONS: dict[str, Any] = {"size_limit": 0.0, "slack": 0.0, "progress": False}


def tower() -> Tower:
    torch.manual_seed(0)
    model = Tower().eval()
    model.mix.to(memory_format=torch.channels_last)
    return model


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tower") / "two"
    compile_model(tower(), (X,), out=out, stages=2, variants={"shifted": (X, X)}, **OPTIONS)
    return out


def stages(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("stage_*")}


def test_stages_are_those_of_the_model_itself(artifact: Path, tmp_path: Path) -> None:
    """Files and weights, byte for byte; so is what an artifact of an artifact has."""
    compile_model(tower(), (X,), out=tmp_path / "model", stages=3, variants={"shifted": (X, X)}, **OPTIONS)
    compile_model(artifact, out=tmp_path / "again", stages=3, **OPTIONS)
    compile_model(tmp_path / "again", out=tmp_path / "twice", stages=2, **OPTIONS)
    assert stages(tmp_path / "again") == stages(tmp_path / "model") != stages(artifact)
    assert stages(tmp_path / "twice") == stages(artifact)
    assert (tmp_path / "twice" / GRAPH).read_bytes() == (artifact / GRAPH).read_bytes()


def test_links_lead_to_the_artifact_and_to_what_it_links_to(artifact: Path, tmp_path: Path) -> None:
    compile_model(artifact, out=tmp_path / "linked", stages=3, weights="link", **OPTIONS)
    with Pipeline.load(artifact) as pipe, Pipeline.load(tmp_path / "linked") as other:
        assert torch.equal(pipe(X, X), other(X, X))
        assert torch.equal(pipe(X), other(X))
    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4))).eval()
    (tmp_path / "checkpoint").mkdir()
    save_file(net.state_dict(), tmp_path / "checkpoint/model.safetensors")
    given = {"checkpoint": tmp_path / "checkpoint", "weights": "link"}
    compile_model(net, (X,), out=tmp_path / "first", stages=2, **given, **OPTIONS)
    compile_model(tmp_path / "first", out=tmp_path / "second", stages=4, weights="link", **OPTIONS)
    shutil.rmtree(tmp_path / "first")
    with Pipeline.load(tmp_path / "second") as pipe, torch.no_grad():
        assert torch.equal(pipe(X), net(X))


def test_the_command_writes_beside_the_artifact(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell.open(tmp_path, monkeypatch, capsys)
    shutil.copytree(artifact, tmp_path / "tower")
    done = shell.run("tower --stages 3 -q --json", "recut")
    assert (done.status, len(json.loads(done.out)["stages"])) == (0, 3), done.err
    assert {path.name for path in tmp_path.iterdir()} >= {"tower", "tower-3"}
    done = shell.run(". --stages 3", "recut")
    assert (done.status, done.out) == (2, "")
    assert ". is no artifact: stagecut compile writes one" in done.err


def changed_graph(folder: Path, **changes: Any) -> None:
    table = json.loads(gzip.decompress((folder / GRAPH).read_bytes()))
    (folder / GRAPH).write_bytes(gzip.compress(json.dumps({**table, **changes}).encode()))


def test_what_cannot_be_cut_again_is_said(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, error: type[CompileError] = SourceError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            compile_model(out, **{"out": tmp_path / "other", "stages": 3} | OPTIONS | options)

    out = shutil.copytree(artifact, tmp_path / "out")
    refused(r"holds .*out, which the model is read from", OutputError, out=out)
    refused(r"is cut already, and its graph stays as it is: leave out dtype", dtype="float16")
    refused(r"continues no texts: its model was not", generate=True, sequences=4)
    (out / "stage_0.safetensors").rename(tmp_path / "kept")
    refused(r"has no stage_0.safetensors: it is missing")
    (tmp_path / "kept").rename(out / "stage_0.safetensors")
    with monkeypatch.context() as patched:
        patched.setattr(cut_again, "stored_weights", lambda *_: {})
        refused(r"out cannot be cut again: no file of weights has the tensor table of its graph")
    changed_graph(out, format=2)
    refused(r"cannot be cut again: its graph is of format 2")
    whole = (out / GRAPH).read_bytes()
    (out / GRAPH).write_bytes(whole[:10] + b"\xff" * 20 + whole[30:])
    refused(r"cannot read .*graph.json.gz: Error -3 while decompressing")
    (out / GRAPH).write_text("{}")
    refused(r"cannot read .*graph.json.gz: Not a gzipped file")
    (out / GRAPH).unlink()
    refused(r"has no graph.json.gz, as artifacts of earlier versions")
    (out / "stage_0.py").write_text((out / "stage_0.py").read_text() + "\n# mine\n")
    refused(r"stage_0.py was edited, or is gone, and stages that")
    (out / "manifest.json").write_text("{")
    refused(r"cannot read .*manifest.json")
    assert not (tmp_path / "other").exists()
