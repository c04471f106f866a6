"""`stagecut adapter`: an adapter more for an artifact, without compiling."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codegen.artifact.added_adapters import add_adapter
from ir.errors import OutputError, SourceError
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.check.artifact import faults
from tests.support.running.commands import Shell

X = torch.linspace(-1, 1, 24).view(3, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()


def adapter(folder: Path, seed: int, rank: int, *layers: str, **settings: Any) -> Path:
    folder.mkdir()
    made = torch.Generator().manual_seed(seed)
    named = {
        f"base_model.model.{layer}.lora_{part}.weight": torch.randn(shape, generator=made)
        for layer in layers
        for part, shape in (("A", (rank, 8)), ("B", (8, rank)))
    }
    save_file(named, folder / "adapter_model.safetensors")
    rules = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(rules))
    return folder


def compiled(folder: Path, *adapters: Path) -> Path:
    save_file(net().state_dict(), folder / "model.safetensors")
    given: dict[str, Any] = {
        "checkpoint": folder / "model.safetensors",
        "adapter": [*adapters, Path("keep")] if adapters else (),
    }
    options: dict[str, Any] = {"stages": 2, "size_limit": 0.0, "progress": False, "dynamic_shapes": {"input": {0: "n"}}}
    compile_model(net(), (X,), out=folder / "out", **given, **options)
    return folder / "out"


def test_an_added_adapter_is_as_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = adapter(tmp_path / "one", 1, 4, "0", "2"), adapter(tmp_path / "two", 2, 2, "2", use_rslora=True)
    (tmp_path / "whole").mkdir()
    whole, out = compiled(tmp_path / "whole", one, two), compiled(tmp_path, one)
    shell = Shell.open(tmp_path, monkeypatch, capsys)
    done = shell.run("out two", "adapter")
    assert (done.status, done.out) == (0, "out has the adapter two from the next time on that it is loaded\n"), done.err
    assert list(faults(out)) == []
    with Pipeline.load(out, strict=True) as pipe, Pipeline.load(whole) as other:
        rows = ["two", None, "one"]
        assert torch.equal(pipe(X, adapter=rows), other(X, adapter=rows))
        assert not torch.equal(pipe(X, adapter="two"), pipe(X))
    done = shell.run("out -o exported", "export")
    assert done.out.endswith("tensors, without the adapters added since it was compiled: two\n"), done.err
    (tmp_path / "again").mkdir()
    with pytest.raises(SourceError, match=r"out keeps no adapters: compile it with one, as in --adapter .*two --adapt"):
        add_adapter(compiled(tmp_path / "again"), two)
    refused = {
        "two": r"cannot have an adapter 'two': one, two are there",
        str(adapter(tmp_path / "wide", 3, 9, "0")): r"has \[9, 8\] for 0; those that are kept are \[4, 8\]",
        str(adapter(tmp_path / "other", 3, 2, "1")): r"adapts 1, which no adapter was kept for",
        str(adapter(tmp_path / "dora", 3, 2, "0", use_dora=True)): r"has other tensors than LoRA's \(DoRA\): without",
    }
    for folder, message in refused.items():
        before = (out / "manifest.json").read_bytes()
        done = shell.run(f"out {folder}", "adapter")
        assert done.status == 2
        assert re.search(message, done.err), done.err
        assert (out / "manifest.json").read_bytes() == before
    with pytest.raises(SourceError, match=r"cannot have an adapter 'a/b': a name has no folders"):
        add_adapter(out, tmp_path / "two", "a/b")


def test_an_artifact_that_cannot_be_written_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = adapter(tmp_path / "one", 1, 4, "0", "2"), adapter(tmp_path / "two", 2, 2, "2")
    out = compiled(tmp_path, one)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match=r"cannot write to .*out: No space left on device"):
            add_adapter(out, two)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert add_adapter(out, two) == "two"


def test_an_added_adapter_goes_along_where_an_artifact_is_cut_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (adapter(tmp_path / name, i, 4, "0", "2") for i, name in enumerate(("one", "two", "three")))
    out, again = compiled(tmp_path, one), tmp_path / "again"
    for more in (two, three):
        add_adapter(out, more)
    for weights in ("copy", "link"):
        compile_model(out, out=again, stages=1, weights=weights, force=True, progress=False)
        assert list(faults(again)) == []
        with Pipeline.load(out) as pipe, Pipeline.load(again, strict=True) as other:
            rows = ["three", "one", "two"]
            assert torch.equal(pipe(X, adapter=rows), other(X, adapter=rows))
    done = Shell.open(tmp_path, monkeypatch, capsys).run("out --stages 1 --weights none -o plan", "recut")
    assert "left out, with the weights: two, three, added since out was compiled" in (done.out + done.err), done.out
    (out / "adapters/three.safetensors").unlink()
    with pytest.raises(SourceError, match=r"three.safetensors, an adapter that was added to .*out, is missing; put it"):
        compile_model(out, out=again, stages=1, force=True, progress=False)


def test_another_compilation_loses_no_added_adapter(tmp_path: Path) -> None:
    out = compiled(tmp_path, adapter(tmp_path / "one", 1, 4, "0", "2"))
    add_adapter(out, adapter(tmp_path / "two", 2, 2, "2"))
    with pytest.raises(
        OutputError, match=r"out got adapters/two.safetensors since it was compiled, which another compilation would l"
    ):
        compiled(tmp_path, tmp_path / "one")
    compile_model(net(), (X,), out=out, stages=1, force=True, progress=False)
    assert (tmp_path / "out.old/adapters/two.safetensors").is_file()


def test_an_edited_manifest_gets_no_new_seal(tmp_path: Path) -> None:
    out = compiled(tmp_path, adapter(tmp_path / "one", 1, 4, "0", "2"))
    manifest = out / "manifest.json"
    edited = manifest.read_text().replace('"min": 1', '"min": 2')
    assert edited != manifest.read_text()
    manifest.write_text(edited)
    before = list(faults(out))
    add_adapter(out, adapter(tmp_path / "two", 2, 2, "2"))
    assert list(faults(out)) == before != []
