"""Images of any grids before texts: their places, and the positions of what stands around them."""

from __future__ import annotations

import re

import pytest
import torch

from runtime.call.input_type import InputType
from runtime.errors import InputError
from runtime.generation.media import MediaInputs, MediaProgram
from runtime.generation.media_grids import grid_positions
from runtime.manifest.manifest import MediaPlaces
from runtime.manifest.manifest import Tensor as ManifestTensor

PLACE = 5
PLACES = MediaPlaces(PLACE, 4, grids="grid", merge=2, indices=1)
TWO = torch.tensor([[1, 2, 4], [1, 4, 2]])  # of a row of two places, and a column of two


def test_positions_follow_the_rows_and_columns_of_images() -> None:
    ids = [9, PLACE, PLACE, 9, PLACE, PLACE, 9]
    index, frame, row, column = grid_positions(PLACES, ids, TWO)[:, 0].tolist()
    assert index == [0, 1, 2, 3, 4, 5, 6]
    assert frame == [0, 1, 1, 3, 4, 4, 6]
    assert row == [0, 1, 1, 3, 4, 5, 6]
    assert column == [0, 1, 2, 3, 4, 4, 6]


@pytest.mark.parametrize(
    ("ids", "grid", "says"),
    [
        ([9, PLACE, 9], TWO, "a prompt has 1 tokens 5 in a row, and an image in their places takes 2"),
        ([9, *[PLACE] * 4], TWO, "a prompt has 4 tokens 5 in a row, and an image in their places takes 2"),
        ([PLACE, PLACE, 9], TWO, "a prompt has tokens 5 for fewer images than `grid` describes"),
        ([9], TWO[:, :2], "`grid` is [2, 2]; expected [images, 3]"),
        ([9], TWO + 1, "`grid` holds [2, 3, 5]; expected rows and columns that are multiples of 2"),
    ],
)
def test_images_that_do_not_fit_the_prompt_are_refused(ids: list[int], grid: torch.Tensor, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        grid_positions(PLACES, ids, grid)


def test_each_text_has_the_patches_of_its_images() -> None:
    kinds = {"grid": ("int64", "images", 3), "pixels": ("float32", "patches", 2), "kinds": ("int64", 1, "seq")}
    symbols = ["images", "patches", "seq"]
    tensors = (ManifestTensor(name, dtype, tuple(shape)) for name, (dtype, *shape) in kinds.items())
    types = {tensor.name: InputType.parse(tensor, symbols) for tensor in tensors}
    positions = InputType.parse(ManifestTensor("media_position_ids", "int64", (4, 1, "seq")), symbols)
    media = MediaInputs((MediaProgram(types, PLACES, {}, positions),))
    pixels, mask = torch.arange(40.0).view(20, 2), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    given = {"pixels": pixels, "grid": torch.tensor([[1, 2, 4], [1, 2, 2], [1, 2, 4]]), "kinds": mask + 1}
    first, second = media.of_rows(given, [[PLACE, PLACE, 9], [PLACE, 9, PLACE, PLACE]], mask)
    assert torch.equal(first.given["media_pixels"], pixels[:8])
    assert torch.equal(second.given["media_pixels"], pixels[8:])
    assert second.given["media_grid"].tolist() == [[1, 2, 2], [1, 2, 4]]
    assert first.given["media_kinds"].tolist() == [[2, 2, 2]]
    assert (first.shift, second.shift) == (0, 0)
    with pytest.raises(InputError, match="`grid` describes 20 patches, and `pixels` has 16"):
        media.of_rows({**given, "pixels": pixels[4:]}, [[PLACE, PLACE, 9], [PLACE, 9, PLACE, PLACE]], mask)
    with pytest.raises(InputError, match="for fewer images than `grid` describes"):
        media.of_rows(given, [[PLACE, PLACE, 9], [PLACE, 9, 9, 9]], mask)
