"""Linear layers of many columns, by blocks of them: torch's bits, or torch's own call."""

from __future__ import annotations

from math import inf

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.stage.linear import column_blocks
from runtime.stage.linear.column_blocks import BlockedLinear, Choices, linear_in_blocks, use_blocks

COLUMNS = 4097


@pytest.fixture(autouse=True)
def choices(monkeypatch: pytest.MonkeyPatch) -> Choices:
    """Choices of the test's own, for which blocks are always fast enough."""
    made = Choices()
    monkeypatch.setattr(column_blocks, "CHOICES", made)
    monkeypatch.setattr(column_blocks, "_GAIN", inf)
    return made


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The shapes of what was multiplied by blocks."""
    shapes: list[torch.Size] = []
    by_blocks = column_blocks._by_blocks

    def watch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append(x.shape)
        return by_blocks(x, weight, bias)

    monkeypatch.setattr(column_blocks, "_by_blocks", watch)
    return shapes


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.no_grad()
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 96), (33, 96), (3, 5, 96)])
def test_a_product_that_comes_again_has_the_same_bits(
    blocks: list[torch.Size], shape: tuple[int, ...], has_bias: bool
) -> None:
    weight, bias = drawn(COLUMNS, 96), drawn(COLUMNS) if has_bias else None
    for turn in range(4):
        x = drawn(*shape) * (turn + 1)
        made = linear_in_blocks(x, weight, bias)
        assert torch.equal(made, F.linear(x, weight, bias))
        assert made.is_contiguous()
    assert len(blocks) in (1, 3)  # compared at the second call; used from then on, if the library adds up alike


@torch.no_grad()
def test_blocks_that_return_other_bits_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = drawn(COLUMNS, 64), drawn(7, 64)
    right = F.linear(x, weight)
    monkeypatch.setattr(column_blocks, "_by_blocks", lambda *given: right.nextafter(torch.tensor(inf)))
    assert all(torch.equal(linear_in_blocks(x, weight, None), right) for _ in range(4))


@torch.no_grad()
def test_blocks_that_are_slower_are_not_used(monkeypatch: pytest.MonkeyPatch, blocks: list[torch.Size]) -> None:
    monkeypatch.setattr(column_blocks, "_GAIN", 0.0)
    for _ in range(4):
        linear_in_blocks(drawn(7, 64), drawn(COLUMNS, 64), None)
    assert len(blocks) == 1


@torch.no_grad()
def test_zeros_tell_nothing(blocks: list[torch.Size]) -> None:
    """A stage is rehearsed with them; of weights that are mostly zeros nothing is concluded."""
    for _ in range(3):
        linear_in_blocks(torch.zeros(7, 64), drawn(COLUMNS, 64), None)
    assert not blocks
    for _ in range(4):
        linear_in_blocks(drawn(9, 64), torch.zeros(COLUMNS, 64), None)
    assert len(blocks) == 1


@torch.no_grad()
@pytest.mark.parametrize(
    ("x", "columns"),
    [
        (drawn(1, 64), COLUMNS),  # a single row is no product of matrices
        (drawn(64), COLUMNS),
        (torch.empty(0, 64), COLUMNS),
        (drawn(64, 7).t(), COLUMNS),
        (drawn(449)[1:].view(7, 64), COLUMNS),  # not aligned
        (drawn(7, 64).double(), COLUMNS),
        (drawn(7, 64), 512),
    ],
)
def test_what_torch_computes_itself(blocks: list[torch.Size], x: Tensor, columns: int) -> None:
    weight = drawn(columns, 64).to(x.dtype)
    for _ in range(3):
        assert torch.equal(linear_in_blocks(x, weight, None), F.linear(x, weight))
    assert not blocks


def test_gradients(blocks: list[torch.Size]) -> None:
    layer, x = nn.Linear(64, COLUMNS), drawn(7, 64)
    use_blocks([layer])
    for _ in range(3):
        layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert not blocks


def test_layers_of_many_columns_become_blocked() -> None:
    class Own(nn.Linear):
        pass

    small, large, half, own = nn.Linear(8, 64), nn.Linear(8, COLUMNS), nn.Linear(8, COLUMNS).half(), Own(8, COLUMNS)
    use_blocks([nn.Sequential(small, large, half, own)])
    assert [type(layer) for layer in (small, large, half, own)] == [nn.Linear, BlockedLinear, nn.Linear, Own]


@torch.no_grad()
def test_kinds_of_products_are_bounded(choices: Choices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_blocks, "_WATCHED", 3)
    weight = drawn(COLUMNS, 16)
    for rows in range(2, 9):
        linear_in_blocks(drawn(rows, 16), weight, None)
    assert len(choices._seen) <= 3
