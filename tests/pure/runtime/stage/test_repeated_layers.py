"""Repeated layers as operators, of which torch.compile sees one a layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from runtime.stage.compiling.repeated_layers import set_apart
from runtime.stage.speed import CompiledStage


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    @torch.compiler.nested_compile_region()
    def forward(self, x: torch.Tensor, rows: int, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        made = self.up(x).view(rows, -1, 2) * scale
        return made.flatten(1), made.sum(-1)


class Stage(nn.Module):
    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(count))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        total = x.new_zeros(x.shape[0], 2)
        for layer in self.layers:
            x, part = layer(x, scale=x.mean(), rows=x.shape[0])  # not in their order
            total = total + part
        return (total.sin(),)


class Graphs(list[Any]):
    """A backend of torch.compile that keeps the names of what each graph calls, and runs it as it is."""

    def __call__(self, graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        self.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return graph.forward


@pytest.mark.slow
@torch.no_grad()
def test_a_class_of_layers_is_compiled_once_for_all_of_them_and_all_sizes() -> None:
    stage, graphs = Stage(5), Graphs()
    inputs = [torch.randn(rows, 4) for rows in (4, 5, 7)]  # the first is as long as it is wide, by chance
    expected = [stage(x)[0] for x in inputs]
    options: dict[str, Any] = {"backend": graphs, "dynamic": True}
    set_apart(stage, options)
    assert [torch.equal(stage(x)[0], y) for x, y in zip(inputs, expected, strict=True)] == [True] * 3
    assert not graphs
    compiled: Any = CompiledStage(stage, options=options)
    assert [torch.equal(compiled(x)[0], y) for x, y in zip(inputs, expected, strict=True)] == [True] * 3
    around, layer = graphs
    assert around.count("stagecut.layer") == 5
    assert "linear" in str(layer)
    assert "stagecut" not in str(layer)


def test_an_operator_tells_what_it_returns_without_data() -> None:
    stage = Stage()
    set_apart(stage, {})
    name = f"{__name__.rpartition('.')[2]}.Layer"
    with FakeTensorMode() as mode:
        given = [mode.from_tensor(torch.ones(6, 4)), mode.from_tensor(torch.ones(()))]
        own = mode.from_tensor(stage.layers.get_parameter("1.up.weight"))
        for _ in range(2):
            made = torch.ops.stagecut.layer(given, [6], own, "tst", name)
            assert [(tuple(one.shape), one.dtype) for one in made] == [((6, 4), torch.float32), ((6, 2), torch.float32)]


def test_layers_that_nothing_tells_apart_stay_as_they_are() -> None:
    stage = Stage(2)
    stage.layers.append(Layer())
    stage.layers[1].register_module("up", stage.layers.get_submodule("0.up"))
    set_apart(stage, {})
    assert [type(layer) is Layer for layer in stage.layers] == [True, True, False]


def test_a_second_class_of_the_same_name_is_another_one() -> None:
    first, second = Stage(1), Stage(1)
    set_apart(first, {})

    class Other(Layer):
        forward = torch.compiler.nested_compile_region()(lambda self, x, rows, scale: (x + scale, x[:, :2]))

    Other.__name__ = "Layer"
    second.layers[0] = Other()
    set_apart(second, {})
    assert type(first.layers[0]) is not type(second.layers[0])
    assert torch.equal(second(torch.ones(1, 4))[0], torch.ones(1, 2).sin())
