"""Sizes that a model rounds up to a multiple: torch sees what divides them, and no other size is refused."""

from __future__ import annotations

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod

from ir.capture import capture
from ir.capture.sizes.rounded_up import in_one_form
from tests.support.checking import Call, assert_same, run_graph, run_model

size = sympy.Symbol("size", integer=True, positive=True)


@pytest.mark.parametrize("remainder", [Mod, PythonMod])
def test_a_size_with_its_remainder_is_even(remainder: type[sympy.Function]) -> None:
    half = in_one_form(FloorDiv(3 * size + 3 * remainder(size, 2) + 1, 6))
    assert not half.has(remainder)
    assert [half.subs(size, n) for n in range(1, 30)] == [(3 * n + 3 * (n % 2) + 1) // 6 for n in range(1, 30)]


def test_other_remainders_stay() -> None:
    other = sympy.Symbol("other", integer=True, positive=True)
    assert in_one_form(FloorDiv(other + Mod(size, 2), 2)).has(Mod)


class Windows(nn.Module):
    """Attention-like windows over an image of any height and width, as Swin has them, then every second row."""

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, (4 - width % 4) % 4, 0, (4 - height % 4) % 4))
        rows, columns = x.shape[1] // 4, x.shape[2] // 4
        windows = x.view(batch, rows, 4, columns, 4, channels).transpose(2, 3).reshape(-1, 16, channels)
        windows = windows - windows.mean(1, keepdim=True)
        x = windows.view(-1, rows, columns, 4, 4, channels).transpose(2, 3).reshape(batch, rows * 4, columns * 4, -1)
        x = x[:, :height, :width]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return x[:, 0::2, 1::2] + x[:, 1::2, 0::2]


def test_an_image_is_padded_to_windows_of_any_height_and_width() -> None:
    torch.manual_seed(0)
    calls = [Call.of(torch.randn(2, *shape, 3)) for shape in ((10, 7), (8, 12), (5, 5), (9, 16))]
    graph = capture(Windows(), calls[0].args, dynamic_shapes={"x": {1: "height", 2: "width"}})
    assert not [guard for guard in graph.guards if guard.has(FloorDiv)]
    for expected, found in zip(run_model(Windows(), calls), run_graph(graph, calls, {}), strict=True):
        assert_same(expected, found)
