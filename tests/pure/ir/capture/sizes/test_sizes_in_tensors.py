"""Sizes that a model's code puts into tensors and reads out of them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ir.capture import capture
from ir.capture.export.example import Example, slotted
from ir.capture.fallbacks.traced import record_traced
from ir.capture.sizes.dynamic import Mark
from ir.errors import CaptureError
from ir.graph import Graph
from ir.objects.signature import flatten, forward_parameters
from tests.support.checking import Call, assert_same, run_graph, run_model
from tests.support.models.functions import Function
from tests.support.models.model_cases import X
from tests.support.models.written import WIDTH, hidden


def recorded(run: Callable[[Tensor], object]) -> Graph:
    return capture(Function(run), (hidden(),), dynamic_shapes={"x": X["x"]})


def agrees(run: Callable[[Tensor], object], graph: Graph, *lengths: int) -> None:
    """The graph returns what the function does, bit for bit."""
    calls = [Call.of(torch.randn(2, length, WIDTH)) for length in lengths]
    assert_same([*run_model(Function(run), calls)], [*run_graph(graph, calls, {})])


def window(x: Any) -> Any:
    """As many rows of a table around its middle as there are tokens, up to all, as DeBERTa's distances."""
    table = torch.arange(16.0)
    span: Any = torch.tensor(min(x.shape[1], 8))
    return table[8 - span : 8 + span] * torch.clamp(torch.arange(2 * 8)[: 2 * span], 0, span * 2 - 1)


def quotient(x: Any) -> Any:
    """Half of the tokens, by an operator that makes a tensor of two numbers."""
    return x.new_zeros(torch.div(x.shape[1], 2, rounding_mode="trunc"), 3)


def pooled_distances(x: Any) -> Any:
    """Distances from the positions of every other token to all others, as Funnel's, whose first token is apart."""
    positions: Any = torch.arange(x.shape[1]).to(x.dtype)
    pooled: Any = torch.cat([positions.new_tensor([-1]), positions[1:-1][::2]])
    first = pooled[0] - positions[0]
    return torch.arange(first + 2 * pooled.shape[0], pooled[0] - positions[-1] - 1, -1, dtype=torch.long)


def last_position(x: Any) -> Any:
    """The number of positions, read from these."""
    positions: Any = torch.arange(x.shape[1])[None, :].expand(x.shape[0], -1)
    return x.new_ones(positions.max() + 1)


def all_valid(x: Any) -> Any:
    """A branch by a mask that forward makes itself, of ones."""
    mask = torch.ones(x.shape[:2], dtype=torch.long)
    return x + 1 if (mask == 0).any().item() else x - 1


@pytest.mark.parametrize("run", [window, quotient, pooled_distances, last_position, all_valid])
def test_a_number_read_from_a_tensor_is_one_of_sizes(run: Callable[[Tensor], Tensor]) -> None:
    graph = recorded(run)
    assert [str(symbol) for symbol in graph.hints] == ["batch", "seq"]
    assert graph.notes == ()
    agrees(run, graph, *range(3, 20))


def changed(x: Any) -> Any:
    count = torch.full((), x.shape[1])
    count += (x[0, 0, 0] > 9).long()
    return x.new_zeros(count.item())


def changed_behind(x: Any) -> Any:
    counts = torch.full((2,), x.shape[1])
    counts.data[0] = x.argmax()
    return x.new_zeros(counts[0].item())


def compared(x: Any) -> Any:
    return x * 2 if torch.tensor(x.shape[1]) > 6 else x


def uneven(x: Any) -> Any:
    places = torch.cat([torch.arange(x.shape[1])[:1], torch.arange(x.shape[1]) * 3])
    return x.new_zeros(places.max().item())


def any_of_none(x: Any) -> Any:
    """Whether one of as many ones is true as there are tokens behind the fourth: of none where there are four."""
    return x + 1 if torch.ones(x[:, 4:].shape[1]).any().item() else x - 1


def rounded(x: Any) -> Any:
    """A number of tokens that float32 has rounded to an even one."""
    count = torch.full((), x.shape[1], dtype=torch.float32) + 2**24
    return x + (count - 2**24).item()


def wrapped(x: Any) -> Any:
    """A number that is beyond int32 where there are two tokens."""
    return x + (torch.full((), x.shape[1], dtype=torch.int32) * 2_000_000_000).item()


@pytest.mark.parametrize("run", [changed, changed_behind, compared, uneven, any_of_none, rounded, wrapped])
def test_numbers_that_do_not_follow_from_sizes_stay_unknown(run: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(
        CaptureError, match=r"a size depends on the values of a tensor|it decides by the values of a tensor"
    ):
        recorded(run)


def calculated_with_truth(x: Any) -> Any:
    """A comparison of a size as a factor, as torch calculates with it."""
    return x * ((torch.tensor(x.shape[1]) > 4) * 5 + torch.maximum(torch.tensor(x.shape[1]) > 6, torch.tensor(False)))


def other_bits(x: Any) -> Any:
    """The number that the bits of a one are in another type."""
    return x + torch.ones((), dtype=torch.int32).view(torch.float32).item()


def filled_mask(x: Any) -> Any:
    """A mask that is filled with five holds True."""
    mask: Any = torch.full_like(x[0, :, 0] > 0, 5)
    return x + 1 if (mask == True).all().item() else x - 1  # noqa: E712  # a comparison of a tensor


def rest_of_nothing(x: Any) -> Any:
    return x + torch.remainder(torch.full((), x.shape[1], dtype=torch.float32), torch.zeros(())).isnan()


@pytest.mark.parametrize("run", [calculated_with_truth, other_bits, rest_of_nothing])
def test_what_torch_calculates_otherwise_than_python_is_left_to_it(run: Callable[[Tensor], Tensor]) -> None:
    graph = recorded(run)
    assert graph.notes == ()
    assert set(graph.ranges.values()) == {(1, None)}
    agrees(run, graph, *range(1, 9))


def by_rest(x: Any) -> Any:
    """A branch by a tensor made of a size, whose number a trace of operators takes for that of the example."""
    return x * 2 if torch.tensor(x.shape[1]) % 2 else x


def as_index(x: Any) -> Any:
    return x * (1.0, 2.0, 3.0, 4.0, 5.0)[int(torch.tensor(x.shape[1]).clamp(max=4))]


@pytest.mark.parametrize("run", [by_rest, as_index])
def test_a_size_that_is_read_as_a_number_is_not_that_of_the_example(run: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CaptureError, match="it decides by the values of a tensor"):
        recorded(run)


def test_a_trace_of_operators_that_takes_a_size_for_a_number_is_refused() -> None:
    model, x = Function(by_rest), hidden()
    tree = slotted(*flatten({"x": x}))
    example = Example(model, forward_parameters(model), tree, [x], [{0: Mark("batch"), 1: Mark("seq")}])
    with pytest.raises(CaptureError, match="it reads a size that may change as a number"):
        record_traced(example)


def test_a_mask_that_is_filled_with_another_number_is_not_known() -> None:
    with pytest.raises(CaptureError, match="it decides by the values of a tensor"):
        recorded(filled_mask)


@torch.jit.script
def scripted_span(x: Tensor, most: int) -> Tensor:
    return torch.tensor(min(x.size(1), most))


def test_a_scripted_function_that_has_run_before_takes_any_size() -> None:
    def near(x: Any) -> Any:
        span = scripted_span(x, 8)
        return torch.arange(16.0)[8 - span : 8 + span] + span

    for _ in range(3):
        near(hidden())
    graph = recorded(near)
    assert graph.notes == ()
    agrees(near, graph, 1, 2, 7, 8, 9, 30)
