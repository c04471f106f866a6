"""Writes at positions that are known when a stage runs alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ir.capture import capture
from ir.errors import CaptureError
from tests.support.checking import Call, assert_same, run_graph, run_model


class Ring(nn.Module):
    """A buffer into which each call writes at the position after that of the call before."""

    def __init__(self, write: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.write = write
        self.ring, self.position = nn.Buffer(torch.zeros(4, 6)), nn.Buffer(torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        self.write(self.ring, self.position % 4, x)
        self.position += 1
        return self.ring * 2


def a_row(ring: Tensor, at: Tensor, x: Tensor) -> None:
    ring[at] = x.mean(0)


def from_the_end(ring: Tensor, at: Tensor, x: Tensor) -> None:
    ring[at - 4] = x.sum(0, keepdim=True)  # with a dimension that Python strips


def a_part_of_a_row(ring: Tensor, at: Tensor, x: Tensor) -> None:
    ring[at, 2:4] = x[0, :2]


def a_column(ring: Tensor, at: Tensor, x: Tensor) -> None:
    ring[..., at] = x[:, 0].sum().double()
    ring[1:, at + 1] = 3


def an_element(ring: Tensor, at: Tensor, x: Tensor) -> None:
    ring[at, at] = x.max()
    ring[0, at] = True


@pytest.mark.parametrize("write", [a_row, from_the_end, a_part_of_a_row, a_column, an_element])
def test_a_buffer_is_written_at_a_position_that_a_call_knows(write: Callable[..., object]) -> None:
    torch.manual_seed(0)
    model = Ring(write)
    calls = [Call.of(torch.randn(batch, 6)) for batch in (3, 2, 5, 1, 3)]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = capture(model, calls[0].args, dynamic_shapes={"x": {0: "batch"}})
    assert [state.fqns[0] for state in graph.states] == ["ring", "position"]
    for i, (expected, found) in enumerate(zip(run_model(model, calls), run_graph(graph, calls, weights), strict=True)):
        assert_same(expected, found, f"call {i}")


def test_a_position_among_the_inputs_may_be_any() -> None:
    class At(nn.Module):
        def forward(self, x: Tensor, at: Tensor) -> Tensor:
            y = x * 2
            y[at] = 0
            return y

    calls = [Call.of(torch.randn(3, 4), torch.tensor(at)) for at in (0, 2, -1)]
    graph = capture(At(), calls[0].args)
    for expected, found in zip(run_model(At(), calls), run_graph(graph, calls, {}), strict=True):
        assert_same(expected, found)


def test_a_position_that_is_read_from_is_refused() -> None:
    def adds(ring: Tensor, at: Tensor, x: Tensor) -> None:
        ring[at] += x.mean(0)

    with pytest.raises(CaptureError, match=r"by nonzero, .item\(\)|decides by the values"):
        capture(Ring(adds), (torch.randn(3, 6),))
