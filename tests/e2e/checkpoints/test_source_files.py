"""Exported programs, and model files with a checkpoint: through the command line to stages that run."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

from runtime import Pipeline
from tests.support.checking import assert_same
from tests.support.running.commands import Shell

QUICK = "--stages 2 --time-limit 5 --size-limit 0"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("steps", torch.arange(8.0), persistent=False)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor], *, scale: float = 2.0) -> dict[str, Any]:
        return {"y": self.two(self.one(x + self.steps).relu()) * scale, "sums": [more["z"].sum(1)]}


def test_an_exported_program(shell: Shell) -> None:
    model, batch = Twice().eval(), Dim("batch", max=64)
    args, kwargs = (torch.randn(3, 8), {"z": torch.randn(3, 5)}), {"scale": 3.0}
    shapes = {"x": {0: batch}, "more": {"z": {0: batch}}, "scale": None}
    torch.export.save(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), shell.folder / "twice.pt2")
    ended = shell.run(f"twice.pt2 -o out {QUICK} --verify --example more.z=6x5")
    assert ended.status == 0, ended.err
    assert "numbers for x_0 6\n" in ended.out
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for size in (1, 7, 64):
            x, z = torch.randn(size, 8), torch.randn(size, 5)
            with torch.no_grad():
                assert_same(model(x, {"z": z}, scale=3.0), pipe(x, more={"z": z}, scale=3.0))


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_an_exported_program_is_unpickled(shell: Shell) -> None:
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, shell.folder / "plain.pt2")
    touched = shell.folder / "touched"
    torch.save(Touch(touched), shell.folder / "evil.pt")
    with zipfile.ZipFile(shell.folder / "plain.pt2") as plain, zipfile.ZipFile(shell.folder / "evil.pt2", "w") as evil:
        for name in plain.namelist():
            held = (shell.folder / "evil.pt").read_bytes() if "sample_inputs" in name else plain.read(name)
            evil.writestr(name.replace("plain/", "evil/"), held)
    message = shell.refused(f"evil.pt2 -o out {QUICK}")
    assert "evil.pt2 holds pickled objects other than tensors, which are not read" in message
    assert not touched.exists()


@pytest.mark.parametrize("held", [b"", b"PK\x03\x04 and no more", b"0" * 100])
def test_a_program_file_that_is_damaged(held: bytes, shell: Shell) -> None:
    (shell.folder / "bad.pt2").write_bytes(held)
    assert "bad.pt2" in shell.refused(f"bad.pt2 -o out {QUICK}")
    assert "whose dtypes are fixed" in shell.refused(f"bad.pt2 -o out {QUICK} --dtype float16")
    assert "with weights of its own" in shell.refused(f"bad.pt2 -o out {QUICK} --checkpoint bad.pt2")


HEAVY = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 64)
        self.register_buffer("steps", torch.arange(64.0), persistent=False)
        {more}
    def forward(self, x):
        return self.two(self.one(x * self.steps)){plus}

model = Net
example_inputs = (torch.ones(2, 64),)
checkpoint = "net.safetensors"
"""


@pytest.mark.parametrize(
    ("more", "plus", "note"),
    [
        ("", "", ""),
        ("self.scale = self.one.weight.abs().max().item()", " * 1", "raised RuntimeError"),
        ("self.register_buffer('norm', self.one.weight.detach().norm(), False)", "", "norm is computed from weights"),
    ],
)
def test_a_model_with_a_checkpoint_is_built_without_memory(more: str, plus: str, note: str, shell: Shell) -> None:
    weights = {f"{name}.weight": torch.randn(64, 64) for name in ("one", "two")}
    save_file(weights | {"one.bias": torch.ones(64), "two.bias": torch.ones(64)}, shell.folder / "net.safetensors")
    shell.write({"net.py": HEAVY.format(more=more, plus=plus)})
    ended = shell.run(f"net.py -o out {QUICK}")
    assert ended.status == 0, ended.err
    assert ("note: the model was made in memory, weights and all: " in ended.err) == bool(note)
    assert note in ended.err
