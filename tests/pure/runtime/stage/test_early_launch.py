"""Kernels that begin before those before them have ended: where torch's start the next one, and all wait."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._inductor.codegen.triton import TritonKernel
from torch._inductor.virtualized import V
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from ir.paged import attention
from runtime.stage.compiling.early_launch import START, WAIT, start_early
from runtime.stage.linear import few_rows

BODY = ["at = tl.program_id(0)", "x = tl.load(first)", WAIT, "y = tl.load(second)", WAIT, START, "tl.store(out, x + y)"]
REST = [line for line in BODY if line not in (START, WAIT)]


def begun(rows: Any, enabled: bool = True) -> list[str]:
    """The lines of a kernel of a graph that multiplies so many rows."""
    graph = torch.fx.Graph()
    x, weight = graph.placeholder("x"), graph.placeholder("weight")
    x.meta["val"] = SimpleNamespace(shape=(rows, 128))
    graph.call_function(torch.ops.aten.mm.default, (weight, x))
    graph.call_function(torch.ops.stagecut.few_rows.default, (x, weight))
    code: Any = SimpleNamespace(_lines=[*BODY])
    kernel: Any = SimpleNamespace(GDC_WAIT=WAIT, GDC_LAUNCH=START, _enable_pdl_codegen=lambda: enabled)
    with V.set_graph_handler(SimpleNamespace(graph=graph)):  # pyright: ignore[reportArgumentType]
        getattr(TritonKernel, "_filter_pdl")(kernel, code)  # noqa: B009
    return code._lines


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TritonKernel, "_filter_pdl", None)
    assert start_early()


@pytest.mark.usefixtures("patched")
def test_kernels_start_the_next_one_and_wait_before_they_touch_memory() -> None:
    some = ShapeEnv().create_unbacked_symint()  # of which nobody may ask whether it is 1
    assert begun(some) == begun(3) == [START, WAIT, *REST]
    assert begun(some, enabled=False) == REST


@pytest.mark.usefixtures("patched")
def test_kernels_of_one_text_wait_first() -> None:
    assert begun(1) == [WAIT, START, *REST]
    assert begun(1, enabled=False) == REST


def test_another_torch_has_kernels_that_begin_in_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TritonKernel, "_filter_pdl")
    assert not start_early()


@pytest.mark.parametrize(("module", "kernels"), [(few_rows, 3), (attention, 2)])
def test_kernels_of_ours_read_weights_alone_ahead_of_their_wait(module: Any, kernels: int) -> None:
    """Else one that begins several kernels ahead of its turn would read what has not been written."""
    text = Path(module.__file__).read_text()
    ahead = re.findall(rf"(?ms)^def \w+\((?:(?!^def ).)*?^    (?:{re.escape(WAIT)}|begin_early\()", text)
    assert len(ahead) == kernels
    for beginning in ahead:
        read = re.findall(r"tl\.(?:load|store)\((\w+)", beginning) + re.findall(r"asked = (\w+)", beginning)
        assert set(read) <= {"held"}
        assert not read or re.findall(r"held = (\w+)", beginning) == ["weight"]
