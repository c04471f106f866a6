"""Linear layers with packed weights: which are packed, and what they return."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from runtime.stage.linear.packed_linear import PackedLinear, pack_linear

WIDTH = 512


@pytest.fixture
def layers() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    module.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False))
    module.small = nn.Linear(WIDTH, 8)
    module.embed = nn.Embedding(WIDTH, WIDTH)
    module.head = nn.Linear(WIDTH, WIDTH, bias=False)
    module.head.weight = module.embed.weight
    return module


@torch.no_grad()
def test_large_layers_return_what_they_did(layers: nn.Module) -> None:
    x = torch.randn(2, 3, WIDTH)
    wanted, weights = [layer(x) for layer in layers.inner], [layer.weight.clone() for layer in layers.inner]
    pack_linear([layers])
    assert all(isinstance(layer, PackedLinear) for layer in layers.inner)
    assert not list(layers.inner.parameters())  # those not packed would be held twice
    for layer, want, weight in zip(layers.inner, wanted, weights, strict=True):
        torch.testing.assert_close(layer(x), want)
        torch.testing.assert_close(layer(x.transpose(0, 1)), want.transpose(0, 1))
        assert torch.equal(layer.weight, weight)


def test_a_small_layer_and_one_tied_to_an_embedding_stay(layers: nn.Module) -> None:
    pack_linear([layers])
    assert type(layers.small) is type(layers.head) is nn.Linear


def test_programs_over_one_weight_pack_it_once(layers: nn.Module) -> None:
    other = nn.Module()
    other.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False))
    for mine, its in zip(layers.inner, other.inner, strict=True):
        its.weight = nn.Parameter(mine.weight.detach())
    pack_linear([layers, other])
    for mine, its in zip(layers.inner, other.inner, strict=True):
        assert mine._packed is its._packed
    assert torch.equal(other.inner[1](torch.ones(1, WIDTH)), layers.inner[1](torch.ones(1, WIDTH)))
    assert not torch.equal(other.inner[0](torch.ones(1, WIDTH)), layers.inner[0](torch.ones(1, WIDTH)))  # own biases
