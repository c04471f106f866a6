"""Graphs that are kept for the next run: when they are the same, and when not."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture.kept import once
from ir.capture.kept.fingerprint import fingerprint
from ir.capture.kept.once import capture_once
from ir.capture.kept.store import folder
from ir.capture.warn import heard, warn
from ir.operators import higher_order
from ir.process.cache_folder import PLACE
from ir.text.printer import print_graph


class Gated(nn.Module):
    scale = 2.0
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.steps, self.table = nn.Linear(4, 4), [1, 2], torch.arange(4.0)
        self.register_buffer("mask", torch.ones(4))

    def forward(self, x: torch.Tensor, times: torch.Tensor | None = None) -> torch.Tensor:
        x = self.layer(x * self.mask) * self.scale + self.table
        return x if times is None else x.repeat(int(times[0]), 1)


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PLACE, str(tmp_path / "cache"))
    return tmp_path


def model() -> Gated:
    torch.manual_seed(0)
    return Gated().eval()


def captured(module: nn.Module, *args: Any, shapes: Any = None) -> tuple[str, bool]:
    graph, kept = capture_once(module, args, {}, dynamic_shapes=shapes, soft=False, fix=())
    return print_graph(graph), kept


def test_the_same_model_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another example of the same types is the same call; weights have the values that they had."""
    first = captured(model(), torch.randn(2, 4))
    monkeypatch.setattr(once, "capture", pytest.fail)
    assert captured(model(), torch.randn(2, 4)) == (first[0], True)


def test_a_full_disk_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a file would take what room is left."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ir.capture.kept.store.os.replace", full)
        first = captured(model(), torch.randn(2, 4))
    assert [*folder().iterdir()] == []
    assert captured(model(), torch.randn(2, 4)) == first == (first[0], False)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.sin() + 1, lambda x: x.cos(), (x,))


def test_functions_that_a_node_runs_are_kept_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 4)
    first = captured(Branching().eval(), x)
    monkeypatch.setattr(once, "capture", pytest.fail)
    monkeypatch.setattr(higher_order, "_KNOWN", {})
    higher_order._at_sizes.cache_clear()
    graph, kept = capture_once(Branching().eval(), (x,), {}, dynamic_shapes=None, soft=False, fix=())
    assert (print_graph(graph), kept) == (first[0], True)
    assert torch.equal(interpret(graph, (x,), {}).outputs[0], Branching()(x))


@pytest.mark.parametrize("code", ["def f(x): return x * SCALE", "import consts\ndef f(x): return x * consts.SCALE"])
def test_what_a_file_held_at_the_import_counts(code: str, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of the user's modules, and of modules in them, are the same text in both runs."""
    read = "from pathlib import Path\nSCALE = float(Path(__file__).with_suffix('.txt').read_text())\n"
    (empty / "consts.txt").write_text("2")
    (empty / "consts.py").write_text(read)
    (empty / "scaling.txt").write_text("2")
    (empty / "scaling.py").write_text(read + code)
    (empty / "scaled.py").write_text(
        "import scaling\nfrom torch import nn\n\nclass Net(nn.Module):\n    def forward(self, x): return scaling.f(x)\n"
    )
    monkeypatch.syspath_prepend(empty)
    for name in ("consts", "scaling", "scaled"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    scaled, scaling = importlib.import_module("scaled"), importlib.import_module("scaling")
    assert fingerprint(scaled.Net(), ()) == (first := fingerprint(scaled.Net(), ()))
    holder = getattr(scaling, "consts", scaling)
    monkeypatch.setattr(holder, "SCALE", 3.0)
    assert first is not None
    assert fingerprint(scaled.Net(), ()) != first
    for name in ("consts", "scaling", "scaled"):
        monkeypatch.delitem(sys.modules, name, raising=False)


class OfEnvironment(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(os.environ.get("SCALE", "2"))


def test_what_code_reads_of_the_environment_has_no_digest() -> None:
    assert fingerprint(OfEnvironment(), ()) is None


def more_steps(m: Gated) -> None:
    m.steps[1] = 3


def another_mask(m: Gated) -> None:
    m.mask[2] = 0.0


def another_table(m: Gated) -> None:
    m.table[0] = 7.0


def another_forward(m: Gated) -> None:
    m.forward = lambda x: x + m.mask  # type: ignore[method-assign]


def a_hook(m: Gated) -> None:
    m.layer.register_forward_hook(lambda module, args, out: torch.mul(out, 2))  # type: ignore[arg-type]


def frozen(m: Gated) -> None:
    m.layer.weight.requires_grad_(False)


def wider(m: Gated) -> None:
    m.layer = nn.Linear(4, 4, bias=False)


@pytest.mark.parametrize(
    "change", [more_steps, another_mask, another_table, another_forward, a_hook, frozen, wider, nn.Module.train]
)
def test_another_model_is_another(change: Callable[[Gated], object]) -> None:
    changed = model()
    change(changed)
    assert fingerprint(changed, ()) not in (None, fingerprint(model(), ()))


def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gated, "forward", lambda self, x: x + self.mask)


def another_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gated, "scale", 3.0)


def double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_default_dtype", lambda: torch.float64)


@pytest.mark.parametrize("change", [patched, another_scale, double])
def test_the_same_model_elsewhere_is_another(
    change: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = model()
    before = fingerprint(module, ())
    change(monkeypatch)
    assert fingerprint(module, ()) not in (None, before)


def test_other_sizes_and_shapes_are_captured_anew() -> None:
    captured(model(), torch.randn(2, 4))
    assert not captured(model(), torch.randn(3, 4))[1]
    assert not captured(model(), torch.randn(2, 4), shapes={"x": {0: "batch"}})[1]
    assert captured(model(), torch.randn(2, 4), shapes={"x": {0: "batch"}})[1]


def test_a_value_that_decides_sizes_is_compared() -> None:
    x = torch.randn(2, 4)
    two, _ = captured(model(), x, torch.tensor([2]))
    three, kept = captured(model(), x, torch.tensor([3]))
    assert not kept
    assert two != three
    assert captured(model(), x, torch.tensor([3])) == (three, True)


def test_a_sparse_weight_has_no_digest() -> None:
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.eye(2).to_sparse(), requires_grad=False)
    assert fingerprint(model, ()) is None


def test_what_cannot_be_told_is_not_kept() -> None:
    module = model()
    module.lock = threading.Lock()  # type: ignore[assignment]
    assert fingerprint(module, ()) is None
    assert not captured(module, torch.randn(2, 4))[1]
    assert not folder().exists()


def test_a_loaded_module_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a stage file is that was compiled again."""
    (tmp_path / "short_lived.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("short_lived")
    before = fingerprint(model(), ())
    (tmp_path / "short_lived.py").unlink()
    assert fingerprint(model(), ()) not in (None, before)


def test_a_damaged_file_is_as_none() -> None:
    first = captured(model(), torch.randn(2, 4))
    for file in folder().iterdir():
        file.write_bytes(b"damaged")
    assert captured(model(), torch.randn(2, 4)) == (first[0], False)
    assert captured(model(), torch.randn(2, 4)) == (first[0], True)


def test_warnings_are_given_again() -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1) * 2

    for kept in (False, True):
        with pytest.warns(UserWarning, match="changes its input x in place"):
            assert captured(Adds().eval(), torch.randn(2, 4))[1] is kept


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv(PLACE, str(blocked))
    return blocked


def test_no_place_to_keep_it_is_no_fault(read_only: Path) -> None:
    assert not captured(model(), torch.randn(2, 4))[1]
    assert not captured(model(), torch.randn(2, 4))[1]


def test_variants_that_differ_in_values_alone_are_kept_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [((torch.randn(2, 4), torch.tensor([count])), {}) for count in (2, 3)]

    def graphs() -> list[tuple[str, bool]]:
        found = [capture_once(model(), *call, dynamic_shapes=None, soft=False, fix=["times"]) for call in calls]
        return [(print_graph(graph), kept) for graph, kept in found]

    first = graphs()
    monkeypatch.setattr(once, "capture", pytest.fail)
    assert graphs() == [(text, True) for text, _ in first]


def test_warnings_are_heard_by_each_that_listens_meanwhile() -> None:
    with heard() as outer:
        with heard() as inner:
            pass
        with pytest.warns(UserWarning, match="a message"):
            warn("a message")
    assert (outer, inner) == (["a message"], [])
