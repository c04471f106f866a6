"""Layers that are alike are exported once a kind: the graph is that of a full export, or the export is a full one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias
from unittest.mock import patch

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.capture.export import recording
from ir.capture.repeats.layers import LayersOnce
from ir.graph import Graph
from ir.text.printer import print_graph

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


def captured(model: nn.Module, fewest: int, dynamic: bool) -> tuple[Graph, int]:
    """The graph, where `fewest` layers alike are exported once a kind, and how many were left out of an export."""
    left_out: list[int] = []
    members, repeats_of = recording.alike_modules, recording.repeats_of

    def noted(once: LayersOnce, program: Any) -> Any:
        left_out.append(len(once.repeated))
        return repeats_of(once, program)

    with (
        patch.object(recording, "alike_modules", lambda model: members(model, fewest)),
        patch.object(recording, "repeats_of", noted),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of state in closures, which no stage has
        return capture(
            model, (torch.randn(3, WIDTH),), dynamic_shapes={"x": {0: "batch"}} if dynamic else None
        ), left_out[-1]


def same(make: Callable[[], nn.Module], dynamic: bool = False) -> int:
    """Check that the graph is that of a full export; returns how many layers were left out of the export."""
    once, left_out = captured(make(), 4, dynamic)
    full, _ = captured(make(), 1000, dynamic)
    assert print_graph(replace(once, notes=())) == print_graph(replace(full, notes=()))
    assert [n.where for n in once.nodes] == [n.where for n in full.nodes]
    assert [v.variables for n in once.nodes for v in n.results] == [v.variables for n in full.nodes for v in n.results]
    assert list(once.modules.items()) == list(full.modules.items())
    return left_out


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
