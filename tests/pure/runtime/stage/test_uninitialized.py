"""Modules without the first values that they draw."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runtime.stage.uninitialized import Uninitialized


def test_modules_without_data_draw_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an embedding are drawn by a function that imports torch's compiler for tensors without data."""
    monkeypatch.setattr(nn.init, "_no_grad_normal_", None)
    monkeypatch.setattr(nn.init, "_no_grad_uniform_", None)
    with Uninitialized(), torch.device("meta"):
        layers = nn.Embedding(3, 4, padding_idx=0), nn.Linear(4, 2)
    assert all(tensor.is_meta for layer in layers for tensor in layer.parameters())


def test_tensors_with_data_are_filled() -> None:
    with Uninitialized():
        layer = nn.Embedding(100, 100)
        assert torch.equal(nn.init.constant_(torch.empty(2), 3.0), torch.full((2,), 3.0))
    assert 0.9 < layer.weight.std() < 1.1
