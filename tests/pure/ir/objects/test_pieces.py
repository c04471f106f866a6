"""Large tensors compared piece by piece."""

from __future__ import annotations

import pytest
import torch

from ir.capture.unregistered_state.snapshots import is_near, is_same
from ir.objects import pieces as pieces_module
from ir.objects.pieces import all_close, in_pieces
from passes.compilation.rounding import distance, equal_results, rounding_between

X = torch.arange(24.0).view(2, 3, 4)


@pytest.fixture(autouse=True)
def _of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces_module, "_ELEMENTS", 5)


def test_pieces_have_the_same_places() -> None:
    found = [*in_pieces(X.transpose(0, 2), X.transpose(0, 2) + 1)]
    assert [a.numel() for a, _ in found] == [5, 5, 5, 5, 4]
    assert all(torch.equal(a + 1, b) for a, b in found)
    assert torch.equal(torch.cat([a for a, _ in found]), X.transpose(0, 2).reshape(-1))
    assert [*in_pieces(torch.ones(0, 3))] == []
    assert [a.item() for (a,) in in_pieces(torch.tensor(7))] == [7]


@pytest.mark.parametrize("place", [0, 4, 5, 23])
def test_a_difference_is_seen_wherever_it_is(place: int) -> None:
    other = X.clone()
    other.view(-1)[place] += 1.0
    assert not all_close(X, other)
    assert not is_same(X, other)
    assert not equal_results(X, other)
    assert distance(X, other) == 1.0
    assert is_near(X * 1000, X * 1000 + (other - X))  # beside the largest of all pieces, not of its own
    assert not is_near(X, other)
    other.view(-1)[place] = torch.nan
    assert rounding_between(X, other) is None


def test_elements_of_no_number_are_alike() -> None:
    nothing = torch.full((7,), torch.nan)
    assert all_close(nothing, nothing.clone())
    assert is_near(torch.zeros(0), torch.zeros(0))
    assert distance(torch.zeros(0), torch.zeros(0)) == 0.0
    rounded = rounding_between(X, X + 2**-20)
    assert rounded is not None
    assert rounded.most == 2**-20
