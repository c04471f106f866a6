"""Grids of images that are read by operators, so that a graph holds for others."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import vision_utils

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.packed import grids
from ir.graph import Call, Graph
from ir.sizes import RowProductSum
from ir.text.printer import print_graph


def some_grid(random: Random) -> tuple[Tensor, int]:
    """Images of whole tokens, and the number of their patches."""
    rows = [[random.randint(1, 3), *(2 * random.randint(1, 9) for _ in range(2))] for _ in range(random.randint(1, 5))]
    grid = torch.tensor(rows)
    return grid, int(grid.prod(1).sum())


class TestOperatorsGiveTheNumbersOfTransformers:
    """On 40 grids of up to five images."""

    @pytest.fixture(params=range(40))
    def given(self, request: Any) -> tuple[Tensor, int]:
        return some_grid(Random(request.param))

    @pytest.mark.parametrize("merged", [False, True])
    def test_segments(self, given: tuple[Tensor, int], merged: bool) -> None:
        made = grids.segments(*given, merged)
        wanted = vision_utils.get_vision_cu_seqlens(given[0], merged)
        assert len(made) == given[1] + 1
        assert torch.equal(made.unique_consecutive(), wanted)

    @pytest.mark.parametrize("merge", [1, 2])
    def test_positions(self, given: tuple[Tensor, int], merge: int) -> None:
        for frames in (False, True):
            wanted = vision_utils.get_vision_position_ids(given[0], merge, frames)
            assert torch.equal(grids.positions(*given, merge, frames), wanted)

    @pytest.mark.parametrize("side", [2, 4, 16])
    def test_windows(self, given: tuple[Tensor, int], side: int) -> None:
        order, bounds = vision_utils.get_vision_window_index(given[0], 2, 4 * side, 2)
        made, among = grids.windows(*given, 2, side)
        assert torch.equal(made, order)
        assert torch.equal(among.unique_consecutive(), bounds)

    @pytest.mark.parametrize("terms", [("bilinear", True, "border"), ("bicubic", False, "zeros")])
    def test_interpolation(self, given: tuple[Tensor, int], terms: tuple[str, bool, str]) -> None:
        mode, corners, padding = terms

        def along(index: Tensor, size: Tensor) -> Any:
            return vision_utils._interpolation_axis_taps_weights(index, size, 7, mode, corners, padding)

        wanted = vision_utils.get_vision_interpolation_indices_and_weights(given[0], 7, mode, corners, 2, padding)
        assert all(map(torch.equal, grids.taps(*given, along, 7, 2), wanted))


def test_a_grid_of_zeros_is_computed_too() -> None:
    """Stages run once on zeros before the first batch."""
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    assert grids.positions(zeros, 8, 2).shape == (8, 2)
    assert grids.windows(zeros, 8, 2, 2)[0].shape == (2,)


class Tower(nn.Module):
    """Attention within each frame of patches `[patches, 8]`, as transformers' towers compute it."""

    kind = "plain"

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, patches: Tensor, grid_thw: Tensor) -> Tensor:
        row, column = vision_utils.get_vision_position_ids(grid_thw, 2).unbind(1)
        rows = self.linear(patches) + (row + 3 * column).sin()[:, None]
        ends = vision_utils.get_vision_cu_seqlens(grid_thw)
        heads = rows[None, None]
        pieces = heads.split((ends[1:] - ends[:-1]).tolist(), dim=2)
        return torch.cat(self.attended(pieces), dim=2)[0, 0]

    def attended(self, pieces: Any) -> list[Tensor]:
        return [self.attention(piece) for piece in pieces]

    def attention(self, piece: Tensor) -> Tensor:
        return scaled_dot_product_attention(piece, piece, piece).contiguous() if piece.shape[2] > 1 else piece


class Counting(Tower):
    def attended(self, pieces: Any) -> list[Tensor]:
        return [self.attention(piece) / len(pieces) for piece in pieces]


class FirstOnly(Tower):
    def attended(self, pieces: Any) -> list[Tensor]:
        return [piece if i else self.attention(piece) for i, piece in enumerate(pieces)]


class Longer(Tower):
    def attention(self, piece: Tensor) -> Tensor:
        return super().attention(piece) if piece.shape[2] > 9 else piece


class Eye(nn.Module):
    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, patches: Tensor, grid: Tensor) -> Tensor:
        return self.tower(patches, grid_thw=grid)


def recorded(tower: Tower, **terms: Any) -> tuple[nn.Module, Graph]:
    model = Eye(tower).eval()
    grid = torch.tensor([[1, 2, 4], [1, 4, 4]])
    shapes: Any = {"patches": {0: "patches"}, "grid": {0: "images"}}
    return model, capture(model, (torch.randn(24, 8), grid), dynamic_shapes=shapes, **terms)


@pytest.mark.slow
class TestTowersOfPatches:
    """What runs once for all images is recorded once, where nothing tells them apart."""

    def test_take_images_of_other_sizes_and_numbers(self) -> None:
        model, graph = recorded(Tower())
        (condition,) = graph.counts
        assert isinstance(condition, RowProductSum)
        assert (condition.input, condition.multiples, str(condition.count)) == ("grid", (1, 2, 2), "patches")
        assert "products of rows of grid, multiples of 1x2x2, add up to patches" in print_graph(graph)
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        for rows in ([[1, 6, 8]], [[2, 2, 2], [1, 10, 4], [1, 2, 6], [3, 2, 2]]):
            grid = torch.tensor(rows)
            patches = torch.randn(int(grid.prod(1).sum()), 8)
            with torch.no_grad():
                wanted = model(patches, grid)
            torch.testing.assert_close(interpret(graph, [patches, grid], weights).outputs[0], wanted)

    @pytest.mark.parametrize("tower", [Counting(), FirstOnly(), Longer()], ids=lambda tower: type(tower).__name__)
    def test_that_tell_images_apart_have_their_grid_fixed(self, tower: Tower) -> None:
        _, graph = recorded(tower, soft=True)
        assert not graph.counts
        assert any("`grid` is fixed at [[1, 2, 4], [1, 4, 4]]" in note for note in graph.notes)


class Stored(nn.Module):
    """Rows, as those of a tower, added where a mask is true; `says`: whether it asserts their number."""

    def __init__(self, says: bool) -> None:
        super().__init__()
        self.linear, self.tower, self.says = nn.Linear(4, 4), Tower(), says

    def forward(self, ids: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        mask = ids == 3
        if self.says:
            torch._check_tensor_all(mask.sum() * 4 == rows.numel())
        x = self.linear(x)
        x[mask, :] = x[mask, :] + rows
        return x


@pytest.mark.slow
def test_rows_that_a_mask_chooses_are_put_back_in_their_places() -> None:
    shapes: Any = {"ids": {0: "seq"}, "x": {0: "seq"}, "rows": {0: "rows"}}
    given = torch.tensor([5, 3, 3, 6, 3]), torch.randn(5, 4), torch.randn(3, 4)
    model = Stored(says=True).eval()
    graph = capture(model, given, dynamic_shapes=shapes)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    ids = torch.tensor([3, 1, 1, 3, 1, 1, 1, 3, 3])
    other = [ids, torch.randn(9, 4), torch.randn(4, 4)]
    with torch.no_grad():
        assert torch.equal(interpret(graph, other, weights).outputs[0], model(*other))
    plain = capture(Stored(says=False).eval(), given, dynamic_shapes=shapes)
    assert any("aten.index.Tensor" in str(node.op) for node in plain.nodes if isinstance(node, Call))


class Listing(nn.Module):
    """Ids, some of which its code lists."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.tower = nn.Linear(4, 4), Tower()

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.linear(x) * len(ids[ids > 2].tolist())


@pytest.mark.slow
def test_ids_that_a_mask_chooses_are_listed_as_before() -> None:
    shapes: Any = {"x": {0: "rows"}}
    graph = capture(Listing().eval(), (torch.tensor([5, 3, 1]), torch.randn(5, 4)), dynamic_shapes=shapes)
    assert graph.notes == ("`ids` is fixed at [5, 3, 1]: its values decide shapes",)
