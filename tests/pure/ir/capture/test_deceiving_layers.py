"""Layers that look alike and are not, or are and do not look it: their graph is always that of a full export."""

from __future__ import annotations

import contextvars
import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.support.models.repeats import NEVER, differences, exported

pytestmark = pytest.mark.slow

WIDTH, LAYERS = 4, 5
Compute: TypeAlias = Callable[[Any, torch.Tensor], torch.Tensor]
SETTINGS: dict[str, float] = {}
SCALE = contextvars.ContextVar("SCALE", default=1.0)
VALUES = torch.rand(WIDTH)


class Layer(nn.Module):
    scale = 1.0

    def __init__(self, index: int, compute: Compute) -> None:
        super().__init__()
        self.index, self.compute, self.calls, self.log = index, compute, 0, list[int]()
        self.inner, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.register_buffer("shift", torch.full((WIDTH,), float(index)), persistent=False)

    @property
    def counted(self) -> int:
        self.calls += 1
        return self.calls + self.index

    def __getattr__(self, name: str) -> Any:
        return 2.0 + self.index % 2 if name == "made_up" else super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


class Stack(nn.Module):
    """Layers one after the other, with something done before each."""

    def __init__(self, compute: Compute, before: Callable[[Any], object] = lambda layer: None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(i, compute) for i in range(LAYERS))
        self.before = before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            self.before(layer)
            x = layer(x)
        return x


def changed(compute: Compute, change: Callable[[Any], object]) -> Stack:
    """A stack whose layers were changed, each alone."""
    stack = Stack(compute)
    for layer in stack.layers:
        change(layer)
    return stack


def plain(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return x + layer.norm(layer.inner(x)) + layer.shift


def hooked(one: bool) -> Stack:
    stack = Stack(plain)
    for layer in stack.layers[3:4] if one else stack.layers:
        layer.register_forward_hook(lambda layer, args, made: made * (layer.index + 2))
        layer.inner.register_forward_pre_hook(lambda inner, args, i=layer.index: (args[0] + i,))
    return stack


def replaced() -> Stack:
    stack = Stack(plain)
    stack.layers[3].forward = lambda x: x.relu()
    return stack


def tied(name: str) -> Stack:
    stack = Stack(plain)
    stack.layers[2].inner.weight = stack.layers[4].inner.weight
    setattr(stack.layers[3], name, getattr(stack.layers[4], name))
    return stack


def neighbours() -> Stack:
    """Layers that read the weights of the one before."""
    stack = Stack(lambda layer, x: layer.inner(x) + (layer.before[0].inner(x) if layer.before else 0))
    for i, layer in enumerate(stack.layers):
        layer.before = [stack.layers[i - 1]] if i != 3 else []
    return stack


def cached() -> Stack:
    """What layers make is kept by the layer's number, and read by the next."""
    made: dict[int, torch.Tensor] = {}

    def compute(layer: Any, x: torch.Tensor) -> torch.Tensor:
        made[layer.index] = layer.inner(x).relu()
        return x + made[layer.index] + made[max(layer.index - 1, 0)]

    return Stack(compute)


def weakly_kept() -> Stack:
    made: list[weakref.ref[torch.Tensor]] = []

    def compute(layer: Any, x: torch.Tensor) -> torch.Tensor:
        alive = any(ref() is not None for ref in made)
        hidden = layer.inner(x)
        made.append(weakref.ref(hidden))
        return hidden.relu() * (2.0 if alive else 3.0)

    return Stack(compute)


def listed() -> Stack:
    """Layers that return one of a list of tensors, as those that may return their attention do."""

    def parts(layer: Any, x: torch.Tensor) -> list[torch.Tensor]:
        return [layer.inner(x), layer.norm(x)]

    def compute(layer: Any, x: torch.Tensor) -> torch.Tensor:
        made = parts(layer, x)
        return [made[0] + x, *made[1:]][0]

    return Stack(compute)


def kept_list() -> Stack:
    kept: list[list[torch.Tensor]] = []

    def compute(layer: Any, x: torch.Tensor) -> torch.Tensor:
        kept.append([layer.inner(x).relu()])
        return x + kept[-1][0] + kept[max(len(kept) - 2, 0)][0]

    return Stack(compute)


def counting() -> Stack:
    numbers = [itertools.count(1)]

    def begin(layer: Any) -> None:
        numbers[0] = numbers[0] if layer.index else itertools.count(1)

    return Stack(lambda layer, x: layer.inner(x) * (1 + next(numbers[0]) // 3), begin)


def set_settings(layer: Any) -> None:
    SETTINGS["scale"] = float(layer.index // 2)


def set_class(layer: Any) -> None:
    Layer.scale = layer.index // 3 + 1.0


def logs(layer: Any, x: torch.Tensor) -> torch.Tensor:
    layer.log.append(layer.index)
    return layer.inner(x) * len(layer.log)


def without_gradients(layer: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.set_grad_enabled(layer.index % 2 == 0):
        return layer.inner(x).relu()


def of_width(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Different slices of equal sizes."""
    start = layer.index % 2
    return layer.inner(x) + x.roll(1, -1)[..., start : start + 1]


def in_place(layer: Any, x: torch.Tensor) -> torch.Tensor:
    made = layer.inner(x)
    made += layer.shift
    return made.mul_(2)


def in_place_given(layer: Any, x: torch.Tensor) -> torch.Tensor:
    x += 1
    return layer.inner(x)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "a hook on one layer": lambda: hooked(one=True),
    "hooks that know their layer": lambda: hooked(one=False),
    "a counter that all share": counting,
    "a property that counts": lambda: Stack(lambda layer, x: layer.inner(x) * layer.counted),
    "an attribute that is made up": lambda: Stack(lambda layer, x: layer.inner(x) * layer.made_up),
    "random numbers": lambda: Stack(lambda layer, x: layer.inner(x) * torch.rand_like(x)),
    "stochastic depth": lambda: Stack(
        lambda layer, x: x + layer.inner(x) * torch.empty(x.shape[0], 1).bernoulli_(1 - layer.index / 10)
    ),
    "a parametrization": lambda: changed(plain, lambda layer: weight_norm(layer.inner)),
    "a parametrization of one": lambda: changed(plain, lambda layer: layer.index == 3 and weight_norm(layer.inner)),
    "a dict of the file": lambda: Stack(lambda layer, x: layer.inner(x) + SETTINGS["scale"], set_settings),
    "a class attribute": lambda: Stack(lambda layer, x: layer.inner(x) * layer.scale, set_class),
    "a context variable": lambda: Stack(
        lambda layer, x: layer.inner(x) * SCALE.get(), lambda layer: SCALE.set(layer.index // 2)
    ),
    "a forward of its own": replaced,
    "a default argument": lambda: changed(
        plain, lambda layer: setattr(layer, "compute", lambda layer, x, by=layer.index // 2: layer.inner(x) * by)
    ),
    "a partial": lambda: changed(
        plain,
        lambda layer: setattr(
            layer, "compute", functools.partial(lambda by, layer, x: layer.inner(x) + by, layer.index % 3)
        ),
    ),
    "tied weights, a shared buffer": lambda: tied("shift"),
    "tied weights, a shared module": lambda: tied("norm"),
    "the weights of another layer": neighbours,
    "a dict by layer": cached,
    "weak references": weakly_kept,
    "lists of results": listed,
    "a list that keeps": kept_list,
    "a list that grows": lambda: Stack(logs),
    "a factor of one": lambda: Stack(lambda layer, x: layer.inner(x) * 1.0),
    "another eps": lambda: changed(plain, lambda layer: setattr(layer.norm, "eps", 10.0 ** -(layer.index // 2 + 3))),
    "a number of NumPy's": lambda: changed(
        lambda layer, x: layer.inner(x) * layer.by, lambda layer: setattr(layer, "by", np.float64(layer.index // 2))
    ),
    "a tensor of its own": lambda: changed(
        lambda layer, x: layer.inner(x) * layer.by, lambda layer: setattr(layer, "by", torch.ones(WIDTH) * layer.index)
    ),
    "a tensor of the file": lambda: Stack(lambda layer, x: layer.inner(x) * VALUES),
    "the number as a tensor": lambda: Stack(lambda layer, x: layer.inner(x) * torch.tensor([1.0 + layer.index])),
    "gradients that end in every other": lambda: Stack(without_gradients),
    "other slices": lambda: Stack(of_width),
    "changes in place": lambda: Stack(in_place),
    "changes of what is given": lambda: Stack(in_place_given),
    "one that returns what it is given": lambda: Stack(
        lambda layer, x: x if layer.index == 3 else layer.inner(x),
    ),
    "dropout in training": lambda: changed(
        lambda layer, x: nn.functional.dropout(layer.inner(x), layer.index / 10, layer.training), lambda layer: None
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_that_of_a_full_export(name: str) -> None:
    once, full = (exported(MODELS[name](), (torch.randn(3, WIDTH),), fewest=n) for n in (4, NEVER))
    assert differences(once.graph, full.graph) == []
    if name in ("random numbers", "lists of results", "changes in place"):
        assert once.left_out == LAYERS - 2
