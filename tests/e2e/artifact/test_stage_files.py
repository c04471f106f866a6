"""A stage file: readable, formatted, with the model's own names, and enough to run alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from passes.compilation.api import compile_model
from tests.support.models.model_cases import CASES
from tests.support.models.planning import slow_machine

NAMES = [
    "long skips",
    "several results",
    "a size in a later stage",
    "constants",
    "names that mean something else",
    "batch normalisation",
    "a cache that calls fill",
    "a sequence of layers",
]


@pytest.fixture(scope="module", params=NAMES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A model, and the folder of its stages."""
    case = CASES[request.param]
    model, out = case.build(), tmp_path_factory.mktemp("artifacts") / "out"
    args = case.calls()[0].args
    compile_model(model, args, out=out, cluster=slow_machine(case.stages), dynamic_shapes=case.dynamic)
    return model, out


def stage_files(out: Path) -> list[Path]:
    return sorted(out.glob("stage_*.py"))


def load(path: Path) -> tuple[ModuleType, Any]:
    """The module of a stage file and its stage, loaded as the file itself says."""
    module = ModuleType(path.stem)
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return module, getattr(module, path.stem.replace("stage_", "Stage")).load(path.with_suffix(".safetensors"))


def test_the_state_dict_has_the_models_names_and_values(compiled: tuple[nn.Module, Path]) -> None:
    model, out = compiled
    whole = model.state_dict()
    for file in stage_files(out):
        _, stage = load(file)
        state = stage.state_dict()
        stored = load_file(file.with_suffix(".safetensors"))
        assert set(state) == set(stored) - (set(dict(stage.named_buffers())) - set(state))
        for name, tensor in state.items():
            assert name not in whole or torch.equal(tensor, whole[name])
            assert (tensor.dtype, tensor.shape) == (stored[name].dtype, stored[name].shape)
        assert set(dict(stage.named_parameters())) <= set(dict(model.named_parameters(remove_duplicate=False)))
        assert not stage.training


def test_each_stage_has_its_own_weights_alone(compiled: tuple[nn.Module, Path]) -> None:
    """All that is read somewhere is stored once, and nothing else is."""
    _, out = compiled
    held = [set(load_file(file.with_suffix(".safetensors"))) for file in stage_files(out)]
    assert sum(map(len, held)) == len(set().union(*held))
    for file, names in zip(stage_files(out), held, strict=True):
        _, stage = load(file)
        assert names == {*dict(stage.named_parameters()), *dict(stage.named_buffers())}


def test_they_are_formatted_and_say_nothing_needless(compiled: tuple[nn.Module, Path]) -> None:
    files = list(map(str, stage_files(compiled[1])))
    for command in (["format", "--check", "--line-length=120"], ["check", "--select=E,F,I,UP", "--line-length=120"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--isolated", *files], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


def test_they_import_torch_alone(compiled: tuple[nn.Module, Path]) -> None:
    modules = {module for file in stage_files(compiled[1]) for module in imported(file)}
    assert modules - sys.stdlib_module_names == {"torch"}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name.split(".")[0] for alias in aliases)
            case ast.ImportFrom(module=module):
                yield str(module).split(".")[0]


def test_the_tables_of_two_ends_agree(compiled: tuple[nn.Module, Path]) -> None:
    """What one stage sends to another is what that one receives, with the same type."""
    modules = [load(file)[0] for file in stage_files(compiled[1])]
    sent = {
        (name, target): (source, dtype, shape)
        for source, module in enumerate(modules)
        for name, (targets, _, dtype, shape) in module.SENDS.items()
        for target in targets
    }
    received = {
        (name, target): row
        for target, module in enumerate(modules)
        for name, row in module.RECEIVES.items()
        if row[0] is not None
    }
    assert sent == received


def test_a_comment_where_the_module_changes(compiled: tuple[nn.Module, Path]) -> None:
    model, out = compiled
    modules = {name for name, _ in model.named_modules()} | {"the model itself"}
    for file in stage_files(out):
        forward = file.read_text().partition("class Stage")[2]
        said = re.findall(r"^ {8,}# (.*?)(?: \(([\w/.]+):(\d+)\))?$", forward, re.MULTILINE)
        assert {place for place, _, _ in said} <= modules
        assert all(a[0] != b[0] for a, b in pairwise(said))


# ---- alone


def test_a_stage_runs_alone_where_nothing_of_ours_is(tmp_path: Path) -> None:
    """Copied to an empty folder, and called as its own first lines say."""
    case = CASES["a size in a later stage"]
    model, x = case.build(), case.calls()[0].args[0]
    compile_model(model, (x,), out=tmp_path / "out", cluster=slow_machine(3), dynamic_shapes=case.dynamic)
    (tmp_path / "alone").mkdir()
    for suffix in ("py", "safetensors"):
        shutil.copy(tmp_path / f"out/stage_2.{suffix}", tmp_path / "alone")
    source = (tmp_path / "alone/stage_2.py").read_text()
    alone = re.search(r"^alone    (.*)$", source, re.MULTILINE)[1]
    script = f"""
import sys, torch
from stage_2 import *
x_2, seq = torch.linspace(-1, 1, 24).reshape(3, 8), 5
torch.save({alone}, "y.pt")
assert not {{"ir", "passes", "codegen", "runtime"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "alone", check=True)
    [y] = torch.load(tmp_path / "alone/y.pt")
    with torch.no_grad():
        expected = model.layers[2](torch.linspace(-1, 1, 24).reshape(3, 8)).tanh()
        expected = expected[:, None].expand(-1, 5, -1) / 5 + model.position(torch.arange(5))
    assert torch.equal(y, expected)


def test_batch_normalisation_stays_as_it_was_exported(tmp_path: Path) -> None:
    """Also in training mode, which changes nothing else in a stage."""
    case = CASES["batch normalisation"]
    model, (x,) = case.build(), case.calls()[0].args
    compile_model(model, (x,), out=tmp_path / "out", cluster=slow_machine(1), dynamic_shapes=case.dynamic)
    assert "FrozenBatchNorm(" in (tmp_path / "out/stage_0.py").read_text()
    _, stage = load(tmp_path / "out/stage_0.py")
    before = {name: tensor.clone() for name, tensor in stage.state_dict().items()}
    with torch.no_grad():
        [found], expected = stage.train()(x), model(x)
    assert torch.equal(found, expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in stage.state_dict().items())


class Widening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x).relu()


class Narrowing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(16, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(x).tanh()


def test_layers_that_take_turns_in_a_later_stage_are_one_loop(tmp_path: Path) -> None:
    layers = nn.Sequential(*(kind() for _ in range(8) for kind in (Widening, Narrowing)))
    model, x = nn.Sequential(OrderedDict(layers=layers)), torch.randn(3, 8)
    compile_model(model, (x,), out=tmp_path / "out", cluster=slow_machine(2))
    (_, first), (_, second) = map(load, stage_files(tmp_path / "out"))
    (found,) = second(*first(x))
    assert torch.equal(found, model(x))
    assert "in zip(" in (tmp_path / "out/stage_1.py").read_text()


TURNS = (torch.sin, torch.cos, torch.tanh, torch.sigmoid, torch.abs)


class Turning(nn.Module):
    """As many lines as functions, in an order of its own."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.turns = TURNS[first:] + TURNS[:first]
        self.up, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        for turn in self.turns:
            z = turn(y)
            y = z + y
        return self.norm(y)


class Long(nn.Module):
    """Has a stage whose forward is so long that the rest of a list of layers is a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 8)
        self.layers = nn.Sequential(*(nn.Sequential(Turning(first)) for first in (*[1] * 9, 0, 2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.stem(x))
        for turn in TURNS * 2:
            y = turn(x)
            x = y * x
        return self.head(x)


def test_a_class_that_is_the_end_of_a_list_loops_over_a_part_of_itself(tmp_path: Path) -> None:
    model, x = Long(), torch.randn(3, 8)
    compile_model(model, (x,), out=tmp_path / "out", cluster=slow_machine(2))
    text = (tmp_path / "out/stage_1.py").read_text()
    assert "class SequentialEnd(Numbered):" in text
    assert "in self[6:9]:" in text
    (_, first), (_, second) = map(load, stage_files(tmp_path / "out"))
    assert torch.equal(second(*first(x))[0], model(x))
