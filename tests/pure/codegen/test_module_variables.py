"""Modules that a stage reaches often by a long path have variables there, as a person would write it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from codegen.lines.stage_file import stage_files
from codegen.text.stage_source import emit
from ir.capture import capture
from ir.plan import plan_stages
from passes.insert_transfers import InsertTransfers
from tests.support.models.planning import cut, machine


class Layer(nn.Module):
    """A layer whose parts no loop goes over."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(8, width) for _ in range(parts))
        self.back = nn.Linear(width, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = sum(part(x).sin() * i for i, part in enumerate(self.parts, 1))
        return x + self.back(y)


class Deep(nn.Module):
    """Two layers after each other, or by turns."""

    def __init__(self, turns: bool = False) -> None:
        super().__init__()
        self.turns = turns
        self.towers = nn.ModuleList([nn.Module()])
        self.towers[0].layers = nn.ModuleList([Layer(5, 8), Layer(6, 9)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.towers[0].layers
        if not self.turns:
            return second(first(x))
        y, z = x, x
        for i, (one, other) in enumerate(zip(first.parts, second.parts, strict=False), 1):
            y, z = one(x).cos().sum() * i + y, other(x).sin().sum() * i + z
        return y - z


def source_of(model: nn.Module, x: torch.Tensor) -> str:
    """The source of a stage of a whole model, which returns what the model does."""
    graph = capture(model, (x,))
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "deep")
    source, names = emit(file).source, dict[str, Any]()
    exec(source, names)
    stage = names["Stage0"]()
    held = model.state_dict()
    stage.load_state_dict({name: held[name] for name in stage.state_dict()})
    assert torch.equal(stage(x)[0], model(x))
    return source


def reached(source: str) -> list[str]:
    """The lines of a stage's forward that bind a variable to a module."""
    forward = source.partition("class Stage0")[2].partition("def forward")[2]
    return re.findall(r"^ +(\w+ = self\.[\w.\[\]]+)$", forward, re.MULTILINE)


def test_modules_one_after_the_other_share_a_variable() -> None:
    source = source_of(Deep().eval(), torch.randn(2, 8))
    assert reached(source) == ["layer = self.towers[0].layers[0]", "layer = self.towers[0].layers[1]"]
    assert "layer.parts[4](" in source
    assert "self.towers[0].layers[1].back(" not in source


def test_modules_by_turns_have_one_around_both() -> None:
    assert reached(source_of(Deep(turns=True).eval(), torch.randn(2, 8))) == ["tower = self.towers[0]"]


def test_a_variable_of_the_users_keeps_its_name() -> None:
    class Named(Deep):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            layer = super().forward(x)
            tower = layer + 1
            return layer * tower

    assert reached(source_of(Named().eval(), torch.randn(2, 8))) == []


def test_a_short_path_is_written_out() -> None:
    assert reached(source_of(nn.Sequential(Layer(5, 6)).eval(), torch.randn(2, 8))) == []
