"""Operators from outside torch: their cost, where they come from, and what a machine without them is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import register_flop_formula

from ir.capture import capture
from ir.errors import CaptureError
from ir.graph import Call
from passes.annotate_cost import AnnotateCost
from passes.compilation.api import compile_model
from runtime.errors import ManifestError
from runtime.manifest.manifest import Manifest
from runtime.stage.loader import load_stages
from tests.support.models.planning import slow_machine
from tests.support.running.forked_jobs import python

MODEL = """
import torch
from torch import nn

@torch.library.custom_op("test_own_file::linear", mutates_args=())
def linear(x: torch.Tensor, k: float) -> torch.Tensor:
    return x * 2 + k

@linear.register_fake
def _(x, k):
    return torch.empty_like(x)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        for layer in self.l:
            x = torch.ops.test_own_file.linear(layer(x), 0.5)
        return x

torch.manual_seed(0)
model, example_inputs = Model().eval(), (torch.ones(2, 8),)
"""

ELSEWHERE = """
import sys, torch
from runtime import Pipeline
with Pipeline.load(sys.argv[1]) as pipe:
    torch.save(pipe(torch.ones(2, 8)), sys.argv[2])
"""

_LIBRARY = torch.library.Library("test_mylab", "DEF")
_LIBRARY.define("mm(Tensor a, Tensor b) -> Tensor")
_LIBRARY.define("linear(Tensor x) -> Tensor")
_LIBRARY.define("bump(Tensor(a!) x) -> ()")
_LIBRARY.impl("mm", torch.mm, "CompositeExplicitAutograd")
_LIBRARY.impl("linear", torch.neg, "CompositeExplicitAutograd")
_LIBRARY.impl("bump", lambda x: None, "CompositeExplicitAutograd")
torch.library.register_fake("test_mylab::bump", lambda x: None)


def test_the_file_that_registers_an_operator_goes_with_the_stages(tmp_path: Path) -> None:
    file, out = tmp_path / "model_with_operator.py", tmp_path / "out"
    file.write_text(MODEL)
    plan = compile_model(file, out=out, cluster=slow_machine(2))
    assert (out / file.name).is_file()
    assert [o.module for o in Manifest.read(out).operators] == [file.stem]
    ended = python(tmp_path, "-c", ELSEWHERE, out, tmp_path / "y.pt")
    assert ended.status == 0, ended.err
    with torch.no_grad():
        wanted = sys.modules[file.stem].model(torch.ones(2, 8))
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), wanted, rtol=0, atol=0)
    assert any("the cost of test_own_file::linear is unknown" in note for note in plan.graph.notes)
    devices = [torch.device("cpu")] * 2
    table = json.loads((out / "manifest.json").read_text()) | {"seal": ""}
    for entry in table["operators"]:
        entry.update(name="test_nowhere::linear", module="")
    (out / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(ManifestError, match="runs the operator test_nowhere::linear; import what registers it first"):
        load_stages(out, Manifest.read(out), devices, strict=False)
    for entry in table["operators"]:
        entry.update(name="test_nowhere::linear", module="test_nowhere", library="nowhere-ops", version="1.2")
    (out / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(ManifestError, match=r"test_nowhere::linear of nowhere-ops 1\.2, which is not installed here"):
        load_stages(out, Manifest.read(out), devices, strict=False)


PACKAGE = {
    "test_own_package/__init__.py": "from .unread import NOTHING",
    "test_own_package/unread.py": "NOTHING = 0",
    "test_own_package/scale.py": "FACTOR = 3.0",
    "test_own_package/ops.py": """
import torch
from test_own_package import scale

@torch.library.custom_op("test_own_package::scaled", mutates_args=())
def scaled(x: torch.Tensor) -> torch.Tensor:
    return x * scale.FACTOR

@scaled.register_fake
def _(x):
    return torch.empty_like(x)
""",
    "test_own_limit.py": "LIMIT = 0.0",
    "test_own_gate.py": """
import torch
from test_own_limit import LIMIT

class Gate(torch.nn.Module):
    def forward(self, x):
        return -x if x.sum() > LIMIT else x
""",
    "test_model_with_package.py": """
import torch
from torch import nn
import test_own_package.ops
from test_own_gate import Gate

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate, self.last = nn.Linear(8, 8), Gate(), nn.Linear(8, 8)

    def forward(self, x):
        return self.last(self.gate(torch.ops.test_own_package.scaled(self.first(x))))

torch.manual_seed(0)
model, example_inputs = Model().eval(), (torch.ones(2, 8),)
""",
}


def test_a_package_of_the_users_goes_with_the_stages_and_what_it_imports(tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    compile_model(tmp_path / "src" / "test_model_with_package.py", out=tmp_path / "out", stages=2)
    copied = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("test_own*.py")}
    copied |= {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out" / "test_own_package").iterdir()}
    assert copied == PACKAGE.keys() - {"test_model_with_package.py"}
    ended = python(tmp_path, "-c", ELSEWHERE, tmp_path / "out", tmp_path / "y.pt")
    assert ended.status == 0, ended.err
    with torch.no_grad():
        wanted = sys.modules["test_model_with_package"].model(torch.ones(2, 8))
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), wanted, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
def test_operators_that_are_named_as_torchs_own_are_others() -> None:
    graph = capture(_calling(lambda x, w: torch.ops.test_mylab.linear(torch.ops.test_mylab.mm(x, w))), (X,))
    found = AnnotateCost().run(graph, slow_machine(1))
    assert [node.cost.flops for node in found.nodes] == [0, 0]
    assert [note.split()[3] for note in found.notes] == ["test_mylab::mm", "test_mylab::linear"]

    @register_flop_formula(torch.ops.test_mylab.mm)
    def flops(a: tuple[int, ...], b: tuple[int, ...], **_: object) -> int:
        return 3 * a[0] * a[1] * b[1]

    found = AnnotateCost().run(graph, slow_machine(1))
    assert [node.cost.flops for node in found.nodes if isinstance(node, Call)] == [3 * 4 * 8 * 8, 0]


def test_an_operator_that_changes_its_argument_is_named() -> None:
    def compute(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = x @ w
        torch.ops.test_mylab.bump(x)
        return x + 1

    with pytest.raises(CaptureError, match=r"the custom operator test_mylab\.bump\.default changes its arguments"):
        capture(_calling(compute), (X,))


X = torch.ones(4, 8)


def _calling(compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> nn.Module:
    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return compute(x, self.weight)

    return Calling().eval()
