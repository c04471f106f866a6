"""A graph and its model at sizes of 1, told alike by the operators that run, without another export."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.capture.checks import equivalence as under_test
from ir.graph import Graph
from tests.support.models.functions import Function

pytestmark = pytest.mark.slow

X = {"x": {0: "batch", 1: "seq"}}


def recorded(compute: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Graph, list[bool]]:
    """The graph of a model that asks about sizes of 1, and what its terms told of each."""
    told: list[bool] = []

    def tell(*args: object) -> bool:
        told.append(under_test.same_terms(*args))  # type: ignore[arg-type]
        return told[-1]

    with patch("ir.capture.model.same_terms", tell):
        graph = capture(Function(compute), (torch.randn(2, 4, 8),), dynamic_shapes=X)
    return graph, told


def asked(x: torch.Tensor) -> bool:
    return x.shape[1] > 1 and x.dim() == 7


def change(x: torch.Tensor) -> torch.Tensor:
    y = x * 2 if asked(x) else x * 3
    y += 1
    y[..., 2:] = x[..., 2:]
    return y.clamp_(0).transpose(1, 2).reshape(-1, x.shape[1]).softmax(-1)


def change_what_a_view_shows(x: torch.Tensor) -> torch.Tensor:
    y = x * 2 if asked(x) else x * 3
    view = y[..., 2:]
    y += 1
    return view * 2


def ask_for_the_device(x: torch.Tensor) -> torch.Tensor:
    y = x * 2 if asked(x) else x * 3
    return torch.histc(y if y.device.type == "cpu" else y.double(), 8, 0, 1) + x


def masked(x: torch.Tensor) -> torch.Tensor:
    y = x * 2 if asked(x) else x * 3
    mask = y.new_ones((), dtype=torch.bool) & (y > 0)
    return y.where((x > 0) & mask & torch.ones((), dtype=torch.bool), y.exp())


def map_over_experts(x: torch.Tensor) -> torch.Tensor:
    """As experts that are kept as they are stored, whose weights are computed one expert at a time."""
    y = x * 2 if asked(x) else x * 3
    codes = torch.arange(24).view(3, 8)
    (weights,) = torch.ops.higher_order.map_impl(lambda code: (code * 2 + 1,), (codes,), ())
    return y[..., None, :] * weights


def map_over_other_experts(x: torch.Tensor) -> torch.Tensor:
    y, more = x * 3, 1 if x.shape[1] > 1 else 2
    (weights,) = torch.ops.higher_order.map_impl(lambda code: (code * 2 + more,), (torch.arange(24).view(3, 8),), ())
    return y[..., None, :] * weights


def map_over_more_rows(x: torch.Tensor) -> torch.Tensor:
    """A function that makes the same of each row, of more rows where there is one."""
    rows = torch.zeros(3 if x.shape[1] > 1 else 5, 1)
    (made,) = torch.ops.higher_order.map_impl(lambda row, codes: (codes * 2,), (rows,), (torch.arange(8),))
    return x * made.sum(0)


def mask_with_what_was_true(x: torch.Tensor) -> torch.Tensor:
    true = torch.ones((), dtype=torch.bool)
    if x.shape[1] == 1:
        true.logical_not_()
    return x.where(true & (x > 0), x.exp())


def change_what_was_read(x: torch.Tensor) -> torch.Tensor:
    y = (x * 2 if asked(x) else x * 3).relu()
    z = y + 1
    y.mul_(z)
    return y + nn.functional.one_hot((x > 0).long(), 3).sum(-1)


def share_memory(x: torch.Tensor) -> torch.Tensor:
    y = x * 3
    z = y.clone() if x.shape[1] > 1 else y.to(y.device)
    z += 1
    return y + z


def change_an_input(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.shape[1] > 1 else x.add_(1)


def read_memory(x: torch.Tensor) -> torch.Tensor:
    y = x.transpose(0, 2)
    y = y.clone(memory_format=torch.contiguous_format) if x.shape[1] > 1 else y
    return y.as_strided((2,), (1,))


def change_what_was_made_alike(x: torch.Tensor) -> torch.Tensor:
    y = x.relu()
    if x.shape[1] > 1:
        return y + y
    z = x.relu()
    z += 1
    return y + z


def change_a_constant(x: torch.Tensor) -> torch.Tensor:
    n = torch.tensor(1)
    if x.shape[1] == 1:
        n += 1
    return x * 2 if n.item() == 1 else x * 3


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 1 if asked(x) else (x[:] * 1).relu() + torch.arange(x.shape[1])[:, None],
        lambda x: x + 1 if asked(x) else (x * 3).to(device=x.device, dtype=torch.float64) + 1,
        change,
        ask_for_the_device,
        change_what_was_read,
        masked,
        map_over_experts,
    ],
)
def test_equal_operators_are_told(compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph, told = recorded(compute)
    assert told == [True]
    assert graph.notes == ()


@pytest.mark.filterwarnings("ignore:the model changes its input")
@pytest.mark.parametrize("compute", [change_what_a_view_shows, change_an_input])
def test_what_is_not_told_is_exported_again(compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph, told = recorded(compute)
    assert told == [False]
    assert graph.notes == ()


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x.relu() if x.shape[1] > 1 else x.sigmoid(),
        share_memory,
        read_memory,
        change_what_was_made_alike,
        change_a_constant,
        mask_with_what_was_true,
        map_over_other_experts,
        map_over_more_rows,
    ],
)
def test_what_differs_is_told(compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
    graph, told = recorded(compute)
    assert told == [False]
    assert len(graph.notes) == 1
