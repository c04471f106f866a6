"""Layers that are alike are exported once a kind: the graph is that of a full export, or the export is a full one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import nn

from ir.analysis.bind import bind_sizes
from ir.capture.checks.equivalence import same_terms
from ir.capture.export.recording import record
from ir.capture.model import _example
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.scaled import Scaled
from tests.support.models.repeats import NEVER, differences, exported

WIDTH, LAYERS = 8, 8
Compute: TypeAlias = Callable[[Any, torch.Tensor], torch.Tensor]


class Layer(nn.Module):
    """A layer that computes one function of itself and its input."""

    pool: torch.Tensor  # what tests add to their layers
    places: Any
    whole: bool
    of_array: bool

    def __init__(self, index: int, compute: Compute) -> None:
        super().__init__()
        self.index, self.compute = index, compute
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


class Sum(nn.Module):
    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        hidden = hidden.relu()
        return hidden + residual


class Stack(nn.Module):
    """Layers one after the other; `again` calls the first one once more."""

    layers: Any  # a list of layers, to which tests add attributes

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


class Cache:
    """Lists of tensors for all layers, which each one fills for itself."""

    def __init__(self) -> None:
        self.made: list[torch.Tensor] = [torch.zeros(())] * LAYERS
        self.names = dict.fromkeys(range(LAYERS), "")


def stores(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """Store what is new in a pool of its own, and read it from there."""
    layer.pool.index_put_((layer.places,), layer.inner(x))
    return x + layer.pool.index_select(0, layer.places).relu()


class Pooled(Stack):
    """Layers with pools; `shared`: one of the pools is read once more after them."""

    def __init__(self, compute: Compute = stores, shared: bool = False) -> None:
        super().__init__(compute)
        self.shared = shared
        for layer in self.layers:
            layer.register_buffer("pool", torch.zeros(5, WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[0]) + 1
        for layer in self.layers:
            layer.places = places
            x = layer(x)
            layer.places = None
        return x + self.layers[LAYERS - 2].pool.index_select(0, places) if self.shared else x


class Cached(Stack):
    """Layers that leave what they make in a cache, from which others read it afterwards."""

    def __init__(self) -> None:
        super().__init__(plain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cache = Cache()
        for layer in self.layers:
            x = layer(x, cache)
        return x + cache.made[1] + cache.made[LAYERS - 2]


class CachedLayer(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.inner = index, nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
        cache.made[self.index] = made = self.inner(x).sigmoid()
        cache.names[self.index] = "made"
        return x + made.relu()


def experts() -> Stack:
    """Layers over weights of three experts each, as they are stored."""

    def over_experts(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        return x + (x @ layer.inner.weight).sum(0)

    stack = Stack(over_experts)
    for layer in stack.layers:
        parts = {"codes": torch.ones(3, WIDTH, WIDTH, dtype=torch.float8_e4m3fn), "scale": torch.rand(3, 2, 2)}
        names = {"codes": "weight", "scale": "weight_scale"}
        layer.inner = nn.Linear(WIDTH, WIDTH, bias=False)
        hold_stored(layer.inner, "weight", KeptWeight(Scaled((4, 4)), tuple(names.items()), torch.float32), parts)
        layer.inner._parameters |= {names[what]: nn.Parameter(part, False) for what, part in parts.items()}
    return stack


def maps(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    (made,) = torch.ops.higher_order.map_impl(lambda row: (row * (layer.index + 1),), (layer.inner(x),), ())
    return made


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


@pytest.mark.slow
def test_layers_of_two_lists_are_counted_in_each() -> None:
    assert same(lambda: nn.Sequential(Stack(plain), Stack(plain))) == 2 * LAYERS - 2


@pytest.mark.slow
def test_what_layers_store_in_pools_is_state_of_each() -> None:
    once = exported(Pooled(), (torch.randn(3, WIDTH),), fewest=4)
    assert [state.fqns[0] for state, _ in once.graph.updates] == [f"layers.{i}.pool" for i in range(LAYERS)]
    assert same(Pooled, dynamic=True) == LAYERS - 2
    assert same(lambda: Pooled(shared=True), dynamic=True) == LAYERS - 2


def test_another_call_is_compared_with_a_graph_whose_layers_are_recorded_once() -> None:
    x = torch.randn(3, WIDTH)
    example = _example(Pooled(), (x,), {}, {"x": {0: "batch"}})
    recording = record(example)
    assert recording.repeats is not None
    for rows, same in ((3, True), (2, False)):
        call = replace(example, templates=recording.repeats.templates).at([x[:rows]])
        assert same_terms(bind_sizes(recording.graph, {"batch": 3}), call) == same


def test_experts_as_they_are_stored_are_exported_once_a_kind() -> None:
    assert same(experts, dynamic=True) == LAYERS - 2


@pytest.mark.slow
def test_layers_that_change_what_they_are_given_in_another_way_are_exported_in_full() -> None:
    def adds(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        layer.pool.add_(1)
        return layer.inner(x) + layer.pool[0]

    assert same(lambda: Pooled(adds)) == 0


@pytest.mark.slow
def test_what_layers_leave_in_a_cache_is_there_for_others() -> None:
    def model() -> nn.Module:
        stack = Cached()
        stack.layers = nn.ModuleList(CachedLayer(i) for i in range(LAYERS))
        return stack

    assert same(model) == LAYERS - 2


@pytest.mark.slow
def test_arguments_of_calls_that_ended_keep_nothing() -> None:
    def model() -> nn.Module:
        stack = Stack(lambda layer, x: layer.sum(layer.inner(x), x))
        for layer in stack.layers:
            layer.sum = Sum()
        return stack

    assert same(model) == LAYERS - 2


@pytest.mark.slow
@pytest.mark.parametrize("compute", [lambda: reads_its_index, lambda: every_fourth, lambda: maps, counter, keeper])
def test_layers_that_only_look_alike_are_exported_in_full(compute: Callable[[], Compute]) -> None:
    assert same(lambda: Stack(compute())) == 0


def test_a_layer_that_says_what_it_is_is_of_another_kind() -> None:
    def model() -> nn.Module:
        stack = Stack(lambda layer, x: layer.inner(x).cumsum(0) if layer.whole else layer.inner(x))
        for layer in stack.layers:
            layer.whole = layer.index % 2 == 1
        return stack

    assert same(model) == LAYERS - 4


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = x.float()
        return given * 2


def test_what_a_layer_makes_is_held_by_no_variable_of_a_module_in_the_next() -> None:
    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        x = layer.inner(x).relu() + x
        return x

    def model() -> nn.Module:
        stack = Stack(compute)
        stack.layers[6] = nn.Sequential(nn.Sequential(Doubled()))
        return stack

    assert same(model) == LAYERS - 3


def numbers_in_code(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """A tensor of numbers, and one that torch makes of an index."""
    return layer.inner(x) * torch.tensor([0.5] * WIDTH) + x[..., [-1]]


@pytest.mark.slow
def test_tensors_of_numbers_in_layers_are_constants_of_each() -> None:
    class Around(Stack):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x * torch.tensor([2.0])) * torch.tensor([3.0])

    once = exported(Around(numbers_in_code), (torch.randn(3, WIDTH),), fewest=4)
    assert once.graph.constants[-1].fqn == f"lifted_tensor_{2 * LAYERS + 1}"
    assert len({constant.data.data_ptr() for constant in once.graph.constants}) == 2 * LAYERS + 2
    assert same(lambda: Around(numbers_in_code), dynamic=True) == LAYERS - 2


@pytest.mark.slow
def test_layers_that_ask_for_the_larger_of_two_sizes_are_exported_once_a_kind() -> None:
    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        return layer.inner(x)[: torch.sym_max(x.shape[0], 2)]

    assert same(lambda: Stack(compute), dynamic=True) >= LAYERS // 2  # the template is a later call


@pytest.mark.slow
def test_layers_whose_results_nobody_reads_are_named_as_in_a_full_export() -> None:
    class Early(Stack):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = [x := layer(x) for layer in self.layers]
            return made[3]

    assert same(lambda: Early(plain)) == LAYERS - 2


@pytest.mark.slow
def test_layers_that_compute_something_else_for_one_row_are_exported_once_a_kind() -> None:
    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        return layer.inner(x) * (2.0 if x.shape[0] > 1 else 3.0)

    assert same(lambda: Stack(compute), dynamic=True) >= LAYERS // 2
    once = exported(Stack(compute), (torch.randn(3, WIDTH),), None, {"x": {0: "batch"}}, fewest=4)
    assert any("`batch` must be 2 or more" in note for note in once.graph.notes)


@pytest.mark.slow
@pytest.mark.parametrize("directly", [range(LAYERS), [LAYERS - 1]])
def test_layers_whose_forward_is_called_are_exported_one_by_one(directly: Sequence[int]) -> None:
    class Direct(Stack):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i, layer in enumerate(self.layers):
                x = (layer.forward if i in directly else layer)(x)
            return x

    assert same(lambda: Direct(plain)) <= LAYERS - len(directly)


def test_layers_with_values_of_others_in_their_code_are_exported_one_by_one_and_say_so() -> None:
    values, array = torch.rand(WIDTH), np.ones(WIDTH, np.float32)

    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        array[0] += 1
        return layer.inner(x) * (torch.tensor(array) if layer.of_array else values)

    def model(of_array: bool) -> nn.Module:
        stack = Stack(compute)
        for layer in stack.layers:
            layer.of_array = of_array
        return stack

    for of_array in (False, True):
        once = exported(model(of_array), (torch.randn(3, WIDTH),), fewest=4)
        assert once.left_out == 0
        assert any("exported one by one: it has _tensor_constant" in note for note in once.graph.notes)
        assert not any("they are of" in note for note in once.graph.notes)


def test_layers_of_many_kinds_are_exported_one_by_one_and_say_so() -> None:
    stack = Stack(lambda layer, x: layer.inner(x) * layer.power)
    for layer in stack.layers:
        layer.power = layer.index // 2
    once = exported(stack, (torch.randn(3, WIDTH),), fewest=4)
    assert once.left_out == 0
    assert any("exported one by one: they are of 4 kinds" in note for note in once.graph.notes)


@pytest.mark.slow
def test_kinds_that_take_turns_are_recorded_once_where_a_layer_asks_about_one_row() -> None:
    def compute(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous() if x.shape[0] > 1 else x
        return layer.inner(x) * (2.0 if layer.whole else 3.0)

    def model() -> nn.Module:
        stack = Stack(compute)
        stack.layers.extend(Layer(i, compute) for i in range(LAYERS, 2 * LAYERS))
        for layer in stack.layers:
            layer.whole = layer.index % 2 == 1
        return stack

    assert same(model, dynamic=True) >= LAYERS  # the template is a later call where caches of torch are new
