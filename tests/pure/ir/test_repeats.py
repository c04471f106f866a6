"""Layers that are alike are exported once a kind: the graph is that of a full export, or the export is a full one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import nn

from tests.support.repeats import NEVER, differences, exported

WIDTH, LAYERS = 8, 8
Compute: TypeAlias = Callable[[Any, torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    """A layer that computes one function of itself and its input."""

    def __init__(self, index: int, compute: Compute) -> None:
        super().__init__()
        self.index, self.compute = index, compute
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


class Stack(nn.Module):
    """Layers one after the other; `again` calls the first one once more."""

    def __init__(self, compute: Compute, again: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(i, compute) for i in range(LAYERS))
        self.again = again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.layers[0](x) if self.again else x


def plain(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    first, second = layer.inner(x).split(WIDTH // 2, dim=-1)
    return x + torch.cat([second.sigmoid(), first], dim=-1)


def reads_its_index(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return x + layer.inner(x) / (layer.index + 1)


def every_fourth(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    return layer.inner(x).cumsum(0) if layer.index % 4 == 3 else layer.inner(x)


def counter() -> Compute:
    calls = [0]

    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return layer.inner(x) * calls[0]

    return compute


def keeper() -> Compute:
    kept: list[torch.Tensor] = []

    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        made = layer.inner(x).relu()
        before = kept.pop() if kept else made
        kept.append(made)
        return x + made + before

    return compute


def same(make: Callable[[], nn.Module], dynamic: bool = False) -> int:
    """Check that the graph is that of a full export; returns how many layers were left out of the export."""
    shapes = {"x": {0: "batch"}} if dynamic else None
    once, full = (exported(make(), (torch.randn(3, WIDTH),), None, shapes, fewest=n) for n in (4, NEVER))
    assert differences(once.graph, full.graph) == []
    return once.left_out


def test_layers_that_are_alike_are_exported_once_a_kind() -> None:
    def model() -> nn.Module:
        stack = Stack(plain, again=True)
        stack.layers[6].inner.weight = stack.layers[5].inner.weight
        return stack

    assert same(model, dynamic=True) == LAYERS - 2


@pytest.mark.parametrize("compute", [lambda: reads_its_index, lambda: every_fourth, counter, keeper])
def test_layers_that_only_look_alike_are_exported_in_full(compute: Callable[[], Compute]) -> None:
    assert same(lambda: Stack(compute())) == 0


def test_a_layer_that_says_what_it_is_is_of_another_kind() -> None:
    def model() -> nn.Module:
        stack = Stack(lambda layer, x: layer.inner(x).cumsum(0) if layer.whole else layer.inner(x))
        for layer in stack.layers:
            layer.whole = layer.index % 2 == 1
        return stack

    assert same(model) == LAYERS - 4
