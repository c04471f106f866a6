"""Slices of the last items along a size that may change, where there may be fewer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ir.capture import capture
from tests.support.checking import Call, assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden


def remembered(x: Tensor) -> tuple[Tensor, Tensor]:
    """The last items, as memory for what follows, as XLNet keeps them."""
    return x + 1, x[:, -9:].detach()


def rest(x: Tensor) -> Tensor:
    """What comes ahead of the last items, of which the example has none."""
    return x[:, :-9]


def every_second(x: Tensor) -> Tensor:
    return x[:, -9::2]


@pytest.mark.parametrize("run", [remembered, rest, every_second])
def test_last_items_are_taken_at_any_size(run: Callable[[Tensor], Tensor]) -> None:
    graph = capture(Function(run), (hidden(),), dynamic_shapes={"x": X["x"]})
    assert {str(symbol): ends for symbol, ends in graph.ranges.items()} == {"batch": (1, None), "seq": (1, None)}
    assert (graph.guards, graph.notes) == ((), ())
    calls = [Call.of(torch.randn(2, length, WIDTH)) for length in (1, 4, 8, 9, 10, 11, 30)]
    assert_same([*run_model(Function(run), calls)], [*run_graph(graph, calls, {})])


def test_fewer_last_items_than_the_example_has_are_a_number() -> None:
    graph = capture(Function(lambda x: x[:, -3:]), (hidden(),), dynamic_shapes={"x": X["x"]})
    assert graph.outputs[0].type.shape[1:] == (3, WIDTH)
    assert [low for low, _ in graph.ranges.values()] == [1, 3]
