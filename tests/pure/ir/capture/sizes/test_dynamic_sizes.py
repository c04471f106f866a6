"""Sizes that may change: how they are named, what the code leaves of them, what is fixed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sympy
import torch
from torch import nn
from torch.export import Dim
from torch.utils._sympy.functions import FloorDiv, Mod

from ir.analysis.arguments import as_number
from ir.capture import capture
from ir.capture.export.example import Example
from ir.capture.export.recording import Recording
from ir.capture.fallbacks.ways import Way, record_somehow
from ir.capture.sizes.dynamic import FixedSizes, parse_dynamic
from ir.errors import CaptureError
from ir.sizes import hold
from tests.support.models.functions import Function, batch, function, seq
from tests.support.models.graphs import captured
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden


def test_sizes_are_expressions_and_no_node_computes_them() -> None:
    graph = function(lambda x: torch.cat([x, x], 1).reshape(x.shape[0], x.shape[1], -1)[:, : x.shape[1] // 2])
    assert [str(v.type) for n in graph.nodes for v in n.results] == [
        "float32[batch, 2*seq, 8]",
        "float32[batch, seq, 16]",
        "float32[batch, (seq//2), 16]",
    ]
    assert graph.hints == {batch: 2, seq: 4}
    assert graph.ranges == {batch: (1, None), seq: (1, None)}


def test_numbers_made_of_sizes_are_returned_as_what_they_are() -> None:
    def compute(x: torch.Tensor) -> Any:
        return x * 2, x.shape[0] / 2, x.shape[0] > 2

    _, half, above = function(compute).signature.returns.leaves
    assert [as_number(half, {batch: 5}), as_number(above, {batch: 5})] == [2.5, True]


def test_sizes_that_are_returned_are_no_outputs() -> None:
    graph = captured("outputs that nothing computes")
    assert [leaf for leaf in graph.signature.returns.leaves if isinstance(leaf, sympy.Basic)] == [seq, 2 * batch + 1]
    assert len(graph.outputs) == 5


def test_inputs_that_share_a_name_share_a_symbol() -> None:
    graph = captured("sizes shared by several inputs")
    assert [v.type.shape for v in graph.inputs] == [(batch, seq), (batch, seq), (batch, seq), (batch,)]


@pytest.mark.parametrize(
    "dynamic",
    [
        {"x": {0: "batch", 1: "seq"}},
        {"x": {-3: "batch", -2: "seq"}},
        {"x": ("batch", "seq", None)},
        [{0: "batch", 1: "seq"}],
        {"x": {0: Dim("batch"), 1: Dim("seq")}},
    ],
)
def test_ways_to_name_sizes(dynamic: Any) -> None:
    [x] = function(torch.relu, dynamic=dynamic).inputs
    assert x.type.shape == (batch, seq, WIDTH)


def test_sizes_without_names_are_named_by_their_place() -> None:
    [x] = function(torch.relu, dynamic={"x": {0: Dim.AUTO, 1: Dim.DYNAMIC}}).inputs
    assert list(map(str, x.type.shape)) == ["x_0", "x_1", "8"]


def test_a_size_of_1_that_the_model_treats_otherwise_is_noted() -> None:
    graph = capture(Function(lambda x: x * 2 if x.shape[0] == 1 else x + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (2, None), seq: (1, None)}
    [note] = graph.notes
    place = re.escape("(at tests/pure/ir/capture/sizes/test_dynamic_sizes.py:") + r"\d+\)"
    assert re.match(f"`batch` must be 2 or more: where it is 1 the model computes something else {place}; for 1", note)


@pytest.mark.parametrize("drop", [torch.squeeze, lambda x: x.squeeze(0), lambda x: x[:, :2].squeeze((0, 2))])
def test_a_size_of_1_that_is_squeezed_away_is_noted(drop: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph = capture(Function(lambda x: drop(x) + 1), (hidden(),), dynamic_shapes={"x": {0: "batch"}})
    assert graph.ranges == {batch: (2, None)}
    [note] = graph.notes
    assert note.startswith(
        "`batch` must be 2 or more: where it is 1 the model computes something else "
        "(at tests/support/models/functions.py:"
    )


def test_a_squeezed_shape_alone_is_looked_at() -> None:
    graph = capture(Function(lambda x: torch.zeros(x.squeeze(0).shape) + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (2, None), seq: (1, None)}


def test_other_sizes_of_1_may_be_squeezed_away() -> None:
    graph = capture(Function(lambda x: x.unsqueeze(1).squeeze(1) + 1), (hidden(),), dynamic_shapes=X)
    assert graph.ranges == {batch: (1, None), seq: (1, None)}


def test_a_size_of_1_that_a_condition_excludes_needs_no_note() -> None:
    graph = capture(Function(lambda x: x * 2 if x.shape[1] % 2 else x + 1), (hidden(),), dynamic_shapes=X)
    assert not hold(graph.guards, {batch: 2, seq: 1})
    assert not [note for note in graph.notes if "where it is 1" in note]


def test_ranges_are_those_that_were_declared() -> None:
    graph = function(torch.relu, dynamic={"x": {0: Dim("batch", min=2, max=16), 1: "seq"}})
    assert graph.ranges == {batch: (2, 16), seq: (1, None)}


def test_what_the_code_assumes_of_sizes_is_a_guard() -> None:
    guards = captured("a length that must be even").guards
    fits = {length: all(guard.subs({seq: length}) == sympy.true for guard in guards) for length in range(1, 9)}
    assert fits == {length: length % 2 == 0 for length in range(1, 9)}


def test_a_size_of_one_stays_dynamic() -> None:
    graph = captured("captured at batch 1 and length 1")
    assert graph.inputs[0].type.shape == (batch, seq, WIDTH)
    assert graph.hints == {batch: 1, seq: 1}


def test_sizes_of_nested_arguments() -> None:
    assert [str(v.type) for v in captured("a dict").inputs] == ["float32[batch, seq, 8]"] * 3


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x @ torch.ones(WIDTH, 4) + x.sum(-1).reshape(2, 4, 1),  # fixed by a literal
        lambda x: sum(x[:, i] for i in range(x.shape[1])),  # fixed by a loop
    ],
)
def test_a_size_that_the_code_fixes(compute: Callable[[torch.Tensor], Any]) -> None:
    with pytest.raises(CaptureError, match=r"leave (it|that size) out of the dynamic shapes") as raised:
        function(compute)
    assert "`seq` (dimension 1 of `x`)" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("ids:0=batch,1=seq", ("ids", {0: "batch", 1: "seq"})),
        ("x : -1=width", ("x", {-1: "width"})),
        ("args.0:2=a_b", ("args.0", {2: "a_b"})),
    ],
)
def test_sizes_of_the_command_line(text: str, parsed: Any) -> None:
    assert parse_dynamic(text) == parsed


@pytest.mark.parametrize("text", ["", "ids", "ids:", "ids:0", "ids:a=b", ":0=a", "ids:0=1st", "ids:0=a=b", "ids:0=a,,"])
def test_what_names_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="does not read as INPUT:DIM=NAME"):
        parse_dynamic(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "free", "fixed"),
    [
        (Function(lambda x: x + torch.kaiser_window(x.shape[1])[:, None]), "batch", "`seq` (dimension 1 of `x`)"),
        (Function(lambda x: sum(x[:, i] for i in range(x.shape[1]))), "batch", "`seq` (dimension 1 of `x`)"),
        (Function(lambda x: x.reshape(2, -1, WIDTH // 2).sum(1)), "seq", "`batch` (dimension 0 of `x`)"),
    ],
)
def test_a_soft_size_that_the_model_fixes_stays_as_it_is(model: nn.Module, free: str, fixed: str) -> None:
    graph = capture(model, (hidden(),), dynamic_shapes=X, soft=True)
    assert [str(symbol) for symbol in graph.hints] == [free]
    [note] = graph.notes
    assert note.startswith(f"{fixed} cannot be dynamic: the model's code works for")
    assert re.search(r"\(at tests/pure/ir/capture/sizes/test_dynamic_sizes.py:\d+\); it stays at that$", note)


def test_a_size_that_is_free_leaves_no_note() -> None:
    assert capture(Function(torch.relu), (hidden(),), dynamic_shapes=X, soft=True).notes == ()


def test_a_condition_that_is_undefined_for_small_sizes_does_not_hold_of_them() -> None:
    size = sympy.Symbol("size", integer=True, positive=True)
    condition = sympy.Eq(Mod(FloorDiv(size, 2) - 3, 5), 0)
    assert [n for n in range(2, 12) if hold([condition], {size: n})] == [6, 7]


def test_a_condition_that_the_example_does_not_meet_fixes_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    seq = sympy.Symbol("seq", integer=True, positive=True)

    def with_condition(example: Example, soft: bool) -> tuple[Example, Recording, Way]:
        example, recording, way = record_somehow(example, soft)
        free = seq in recording.graph.hints
        made_up = replace(recording.graph, guards=(*recording.graph.guards, *[sympy.Eq(sympy.Mod(seq, 4), 0)] * free))
        return example, replace(recording, graph=made_up), way

    monkeypatch.setattr("ir.capture.model.record_somehow", with_condition)
    model, x = nn.Linear(4, 4), torch.ones(2, 3, 4)
    with pytest.raises(FixedSizes, match=r"`seq` cannot be dynamic: .* meet Eq\(Mod\(seq, 4\), 0\), which 3 does not"):
        capture(model, (x,), dynamic_shapes={"input": {0: "batch", 1: "seq"}})
    graph = capture(model, (x,), dynamic_shapes={"input": {0: "batch", 1: "seq"}}, soft=True)
    assert [str(symbol) for symbol in graph.hints] == ["batch"]
    assert len(graph.notes) == 1


def test_a_table_by_size_names_the_sizes_to_fix() -> None:
    with pytest.raises(CaptureError, match="looks up a size that may change in a table") as raised:
        function(lambda x: x + {4: 1}.get(x.shape[1], 0))
    assert "fix that size: leave it out of the dynamic sizes `batch`, `seq`" in str(raised.value)


def test_an_operator_of_fixed_sizes_names_the_sizes_to_fix() -> None:
    with pytest.raises(CaptureError, match="it calls what torch computes for fixed sizes alone") as raised:
        function(lambda x: x.flatten(0, 1)[:, :2].clone().fill_diagonal_(0, wrap=True))
    assert "fix that size: leave it out of the dynamic sizes `batch`, `seq`" in str(raised.value)
    assert "frame #" not in str(raised.value)
