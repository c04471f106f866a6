"""`stagecut check`: an artifact that is whole, and faults put into one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ir.errors import InternalError
from passes.compilation import compiler
from runtime.check.__main__ import main
from runtime.check.artifact import faults
from runtime.errors import ManifestError
from runtime.manifest.manifest import Manifest
from stagecut import compile_model
from tests.faults.inject import inject
from tests.faults.sample import Sample

SHARE = range(64)  # of the faults of `make faults`


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample.compiled(tmp_path_factory.mktemp("check") / "sample")


@pytest.fixture
def copy(sample: Sample, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sample.folder, tmp_path / "copy"))


def test_an_artifact_is_whole(sample: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    assert [*faults(sample.folder)] == []
    assert main([str(sample.folder)]) == 0
    assert capsys.readouterr().out == f"{sample.folder} is whole\n"


def test_every_fault_is_found(sample: Sample, tmp_path: Path) -> None:
    outcomes = [inject(sample, number, tmp_path) for number in SHARE]
    assert {outcome.grade for outcome in outcomes} == {"alone", "hashes", "sealed", "plan"}
    assert [outcome for outcome in outcomes if not outcome.found] == []


def test_an_edited_stage_file_is_a_fault(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (copy / "stage_1.py").open("a") as file:
        file.write("# by hand\n")
    assert main([str(copy)]) == 2
    ended = capsys.readouterr()
    assert ended.err == "error: stage_1.py: it was changed after the compiler wrote it\n"
    assert ended.out == f"{copy} is not whole; compile the model again\n"


@pytest.mark.parametrize(("what", "other"), [("relu", "tanh"), ("x_2_2 * self.scale", "self.scale")])
def test_a_line_that_the_compiler_did_not_write_is_named(copy: Path, what: str, other: str) -> None:
    path = copy / "stage_0.py"
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if what in line)
    lines[at] = lines[at].replace(what, other)
    path.write_text("".join(lines))
    assert f"stage_0.py:{at + 1}: the line is not what the compiler wrote" in [*faults(copy)]


def test_a_stage_that_receives_more_than_was_planned_is_named(copy: Path) -> None:
    manifest = Manifest.read(copy)
    stages = [row | {"activation_bytes": 8} for row in manifest.plan["stages"]]
    replace(manifest, plan=manifest.plan | {"stages": stages}).write_sealed(copy)
    assert "stage 1: it receives 256 bytes, more than was planned for activations" in [*faults(copy)]


def test_a_transfer_that_nobody_sends_is_named(copy: Path) -> None:
    manifest = Manifest.read(copy)
    (program,) = manifest.programs
    first, *others = program.stages
    name = first.sends[0].tensor.name
    program = replace(program, stages=(replace(first, sends=first.sends[1:]), *others))
    replace(manifest, programs=(program,)).write_sealed(copy)
    assert f"stage 1: it receives {name}, which stage 0 does not send" in [*faults(copy)]


def test_a_tensor_with_other_bytes_is_named(copy: Path) -> None:
    path = copy / "stage_0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = [*faults(copy)]
    assert found[0] == "stage_0.safetensors: it was changed after the compiler wrote it"
    assert found[1].endswith(" has other bytes than the compiler wrote")


def test_weights_that_another_program_wrote_have_no_sums_to_compare(copy: Path) -> None:
    """As those of an artifact that was compiled with --weights none; their names, dtypes and shapes are compared."""
    manifest = Manifest.read(copy)
    (program,) = manifest.programs
    unknown = [{name: replace(held, crc32="") for name, held in stage.holds.items()} for stage in program.stages]
    stages = tuple(replace(stage, holds=holds) for stage, holds in zip(program.stages, unknown, strict=True))
    files = {name: digest for name, digest in manifest.files.items() if not name.endswith(".safetensors")}
    replace(manifest, files=files, programs=(replace(program, stages=stages),)).write_sealed(copy)
    assert [*faults(copy)] == []
    path = copy / "stage_0.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path)
    assert "is F16" in next(iter(faults(copy)))


def test_tables_that_are_empty_are_named(copy: Path) -> None:
    table = json.loads((copy / "manifest.json").read_text())
    table["programs"][0]["nodes"][0]["makes"] = []
    (copy / "manifest.json").write_text(json.dumps(table))
    assert "manifest.json: it lists nodes that make nothing" in [*faults(copy)]
    (copy / "manifest.json").write_text(json.dumps({**table, "programs": []}))
    with pytest.raises(ManifestError, match=r"is damaged \(it lists no program\); compile the model again"):
        [*faults(copy)]


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not an artifact folder: it has no manifest.json" in capsys.readouterr().err


def test_linked_weights_are_whole_until_the_checkpoint_changes(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    save_file(model.state_dict(), checkpoint)
    out = tmp_path / "out"
    compile_model(model, (torch.ones(2, 4),), out=out, stages=2, weights="link", checkpoint=checkpoint)
    assert [*faults(out)] == []
    save_file({name: tensor + 1 for name, tensor in model.state_dict().items()}, checkpoint)
    assert [*faults(out)] == ["../model.safetensors: the checkpoint's file has changed; put it back"]


def test_an_artifact_that_is_not_whole_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "faults", lambda *_, **__: iter(["stage 0: it runs nothing"]))
    with pytest.raises(InternalError, match="the artifact is not whole: stage 0: it runs nothing"):
        compile_model(nn.Linear(4, 4), (torch.ones(2, 4),), out=tmp_path / "out", stages=1)
    assert [*tmp_path.iterdir()] == []


def test_the_check_needs_no_torch() -> None:
    code = "import runtime.check.__main__, sys; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
