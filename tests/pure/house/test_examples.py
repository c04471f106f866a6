"""The examples are what README says a model file is, and `examples/check.py` tells right from wrong."""

from __future__ import annotations

import inspect
import runpy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from examples import check
from tests.support.checking import EXAMPLES, MODEL_FILES


@pytest.mark.parametrize("name", MODEL_FILES)
def test_importing_an_example_builds_no_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))  # the first use makes a checkpoint

    def register(module: nn.Module, *_: object) -> None:
        raise AssertionError(f"built a {type(module).__name__}")

    monkeypatch.setattr(nn.Module, "register_parameter", register)
    names = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert "Special here:" in names["__doc__"]
    assert {"model", "example_inputs", "dynamic_shapes"} <= names.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_FILES)
def test_an_example_runs_at_other_sizes(name: str) -> None:
    model, args, kwargs = check.load(EXAMPLES / f"{name}.py")
    dynamic = runpy.run_path(str(EXAMPLES / f"{name}.py"))["dynamic_shapes"]
    inputs = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    assert dynamic.keys() <= inputs.keys()
    assert not model.training
    grown = {key: grow(value, dynamic.get(key, {})) for key, value in inputs.items()}
    with torch.no_grad():
        model(**inputs)
        model(**grown)


def grow(value: torch.Tensor, dims: dict[int, str]) -> torch.Tensor:
    for dim in dims:
        value = torch.cat([value, value.narrow(dim, 0, 1)], dim)
    return value


@pytest.mark.parametrize(
    ("found", "status", "text"),
    [
        (torch.ones(2), 0, "what the uncut model of model.py gives, bit for bit"),
        (torch.full((2,), 1.5), 1, "output 0 is off by 0.5 at most"),
        (torch.ones(3), 1, "in place of torch.float32[2]"),
        (None, 1, "output 0 is None in place of"),
    ],
)
def test_check_compares_leaf_by_leaf(
    found: Any, status: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return {'y': x, 'n': 3}\n"
        "model = Model\n"
        "example_inputs = (torch.ones(2),)\n"
    )
    pipeline = SimpleNamespace(load=lambda out: nullcontext(lambda x: {"y": found, "n": 3}))
    monkeypatch.setattr(check, "Pipeline", pipeline)
    assert check.main(Path("model.py"), Path("out")) == status
    assert text in capsys.readouterr().out
