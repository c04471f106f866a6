"""scipy is not imported with transformers, and is there once it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import transformers as t

from ir.sources import Reading, checkpoint_folder, read_source
from ir.sources.libraries.late_scipy import scipy_later

optimize = pytest.importorskip("scipy.optimize")
COSTS, CHOSEN = [[2, 1], [1, 3]], [1, 0]


@pytest.fixture(autouse=True)
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scipy.optimize")


def test_the_solver_is_imported_when_it_is_called() -> None:
    with scipy_later():
        solver = import_module("scipy.optimize").linear_sum_assignment
        assert not hasattr(sys.modules["scipy.optimize"], "__file__")
    assert "scipy.optimize" not in sys.modules
    assert solver(COSTS)[1].tolist() == CHOSEN
    assert import_module("scipy.optimize").__file__ == optimize.__file__


def test_all_else_is_imported_when_it_is_asked_for() -> None:
    with scipy_later():
        asked = import_module("scipy.optimize").OptimizeResult
        assert sys.modules["scipy.optimize"].OptimizeResult is asked
    assert isinstance(asked, type)
    assert import_module("scipy.optimize").OptimizeResult is asked


@pytest.mark.parametrize(
    "line", ["from scipy.optimize import *", "from scipy.optimize._lsap import linear_sum_assignment"]
)
def test_all_names_and_modules_inside_are_imported(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "scipy.optimize._lsap")
    names: dict[str, Any] = {}
    with scipy_later():
        exec(line, names)
    assert names["linear_sum_assignment"](COSTS)[1].tolist() == CHOSEN
    assert import_module("scipy.optimize").__file__ == optimize.__file__


def test_what_is_imported_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", optimize)
    with scipy_later():
        assert sys.modules["scipy.optimize"] is optimize
    assert sys.modules["scipy.optimize"] is optimize


def test_a_folder_is_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 16}
    t.LlamaConfig(**sizes, intermediate_size=8, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    seen: list[ModuleType] = []
    plain = checkpoint_folder.model_class

    def model_class(*given: Any) -> Any:
        seen.append(sys.modules["scipy.optimize"])
        return plain(*given)

    monkeypatch.setattr(checkpoint_folder, "model_class", model_class)
    read_source(str(tmp_path), Reading(weights=False))
    assert not hasattr(seen[0], "__file__")
    assert "scipy.optimize" not in sys.modules
