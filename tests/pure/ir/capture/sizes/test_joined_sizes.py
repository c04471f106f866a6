"""Tensors that are taken apart along a size that may change, and joined again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.graph import Call, Graph

pytestmark = pytest.mark.slow

Function = Callable[[torch.Tensor], torch.Tensor]


class Rows(nn.Module):
    """A function of what a linear layer makes of `[rows, 5, 4]`."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x))


def changed_afterwards(x: torch.Tensor) -> torch.Tensor:
    joined = torch.cat(list(x))
    joined += 1
    return joined.sum() + x


def between_others(x: torch.Tensor) -> torch.Tensor:
    rows = list(x)
    return torch.cat([torch.ones(2, 4), *rows, *rows, torch.zeros(rows[0].shape)])


def filled_first(x: torch.Tensor) -> torch.Tensor:
    rows = list(x)
    rows[0].fill_(1.0)
    return torch.cat(rows)


def found_by_number(x: torch.Tensor) -> torch.Tensor:
    rows = list(x)
    return torch.cat(rows) / len(rows)


def other_if_alone(x: torch.Tensor) -> torch.Tensor:
    rows = list(x)
    return torch.cat(rows) if len(rows) > 1 else torch.cat(rows) * 2


def other_if_many(x: torch.Tensor) -> torch.Tensor:
    rows = list(x)
    return torch.cat(rows) if len(rows) < 16 else torch.cat(rows) * 2


def of_threes(x: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(x)) / len(list(x)) + x.unflatten(0, (-1, 3)).sum()


JOINED: dict[str, Function] = {
    "list": lambda x: torch.cat(list(x)),
    "tuple": lambda x: torch.concat(tuple(x), dim=0),
    "star": lambda x: torch.cat([*x], -1),
    "comprehension": lambda x: torch.stack([row for row in x]),  # noqa: C416
    "unbind": lambda x: torch.stack(x.unbind(0), -1),
    "torch.unbind": lambda x: torch.cat(torch.unbind(input=x.transpose(0, 1), dim=1), dim=1),
    "stacked between others": lambda x: torch.stack([torch.ones(5, 4), *x, torch.zeros(5, 4)], 1),
    "between others": between_others,
    "changed afterwards": changed_afterwards,
}
FIXED: dict[str, Function] = {
    "each on its own": lambda x: torch.cat([row.relu() for row in x]),
    "reversed": lambda x: torch.cat(list(x)[::-1]),
    "all but one": lambda x: torch.cat(list(x)[1:]),
    "the length": lambda x: torch.cat(list(x)) / len(x),
    "the length of the list": found_by_number,
    "other if alone": other_if_alone,
    "other if many": other_if_many,
    "filled first": filled_first,
    "a number of threes": of_threes,
    "into memory": lambda x: torch.cat(list(x), out=torch.empty(len(x) * 5, 4)),
}


def captured(function: Function, **options: Any) -> tuple[Rows, Graph]:
    model = Rows(function).eval()
    return model, capture(model, (torch.randn(3, 5, 4),), dynamic_shapes={"x": {0: "rows"}}, **options)


def run(graph: Graph, model: Rows, x: torch.Tensor) -> torch.Tensor:
    return interpret(graph, [x], dict(model.named_parameters())).outputs[0]


@pytest.mark.parametrize("function", JOINED.values(), ids=JOINED.keys())
@torch.no_grad()
def test_pieces_that_are_joined_again_are_one_tensor(function: Function) -> None:
    model, graph = captured(function)
    assert not any(isinstance(n, Call) and "unbind" in str(n.op) for n in graph.nodes)
    assert not graph.notes
    for rows in (1, 2, 3, 7):
        x = torch.randn(rows, 5, 4)
        assert torch.equal(run(graph, model, x), model(x))


@pytest.mark.parametrize("function", FIXED.values(), ids=FIXED.keys())
@torch.no_grad()
def test_anything_else_fixes_how_many_there_are(function: Function) -> None:
    model, graph = captured(function, soft=True)
    assert "`rows` (dimension 0 of `x`) cannot be dynamic: the model's code works for 3 alone" in graph.notes[0]
    x = torch.randn(3, 5, 4)
    assert torch.equal(run(graph, model, x), model(x))


def test_few_sizes_are_all_that_a_graph_takes() -> None:
    model, shapes = Rows(found_by_number).eval(), {"x": {0: Dim("rows", min=2, max=3)}}
    graph = capture(model, (torch.randn(3, 5, 4),), dynamic_shapes=shapes, soft=True)
    assert "the model's code works for 3 alone" in graph.notes[0]


class TwoNamed(nn.Module):
    """Two sizes that must be equal: the graph has one of the names."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        rows = list(x + y)
        return torch.cat(rows) / len(rows)


@torch.no_grad()
def test_a_size_may_have_the_name_of_another() -> None:
    x, shapes = torch.randn(3, 5, 4), {"x": {0: "a"}, "y": {0: "b"}}
    graph = capture(TwoNamed(), (x, x), dynamic_shapes=shapes, soft=True)
    assert [v.type.shape for v in graph.inputs] == [(3, 5, 4)] * 2
    assert torch.equal(interpret(graph, [x, x], {}).outputs[0], TwoNamed()(x, x))


def test_pieces_may_be_returned() -> None:
    _, graph = captured(lambda x: list(x), soft=True)  # type: ignore[arg-type, return-value]
    assert [v.type.shape for v in graph.outputs] == [(5, 4)] * 3
