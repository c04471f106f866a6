"""Images of any grids or number before texts: their places, and the positions of what stands around them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from runtime.call.input_type import InputType
from runtime.errors import InputError
from runtime.generation.prompts.media import MediaInputs, MediaProgram
from runtime.generation.prompts.media_images import grid_positions
from runtime.manifest.manifest import CallSignature, MediaPlaces, Parameter, ProgramEntry, Symbol
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
    media: Any = MediaInputs((MediaProgram(types, PLACES, {}, positions),))
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
    given["grid"], given["pixels"] = given["grid"][:1], pixels[:8]
    alone, first = media.of_rows(given, [[9, 9, 9], [9, 9, PLACE, PLACE]], mask)
    assert alone is None
    assert first.given["media_pixels"].shape == (8, 2)


def test_each_text_has_the_images_that_its_places_are_of() -> None:
    kinds = {"sizes": ("int64", "images", 2), "pixels": ("float32", "images", 3, "height", "width")}
    tensors = (ManifestTensor(name, dtype, tuple(shape)) for name, (dtype, *shape) in kinds.items())
    types = {tensor.name: InputType.parse(tensor, ["images", "height", "width"]) for tensor in tensors}
    media: Any = MediaInputs((MediaProgram(types, MediaPlaces(PLACE, 4, grids="sizes", divisors=(2, 2))),))
    given = {"sizes": torch.tensor([[4, 5], [2, 2], [2, 4]]), "pixels": torch.randn(3, 3, 6, 6)}
    ids = [[PLACE] * 4 + [9], [9, 9, 9, 9, 9], [PLACE, 9, PLACE, PLACE, 9]]
    first, none, last = media.of_rows(given, ids, None)
    assert none is None
    assert torch.equal(first.given["media_pixels"], given["pixels"][:1, :, :4, :5])
    assert torch.equal(last.given["media_pixels"], given["pixels"][1:, :, :2, :4])
    assert last.given["media_sizes"].tolist() == [[2, 2], [2, 4]]
    with pytest.raises(InputError, match="a prompt has 3 tokens 5, and its images take 4"):
        media.of_rows(given, [[PLACE, PLACE, PLACE, 9, 9], *ids[1:]], None)
    with pytest.raises(InputError, match=r"`sizes` holds \[4, 1\]; expected \[2, 2\] or more"):
        media.of_rows({**given, "sizes": given["sizes"].clamp(max=torch.tensor([4, 1]))}, ids, None)
    described = r"`sizes` describes \[\[4, 5\], \[2, 2\], \[2, 4\]\], and `pixels` is \[3, 3, 6, 4\]"
    with pytest.raises(InputError, match=described):
        media.of_rows({**given, "pixels": given["pixels"][..., :4]}, ids, None)


def test_each_text_has_its_images_that_are_not_zeros() -> None:
    kinds = {
        "pixels": ("float32", 1, "images", 3, 2, 2),
        "mask": ("int64", 1, "images", 2, 2),
        "kinds": ("int64", 1, "seq"),
    }
    tensors = (ManifestTensor(name, dtype, tuple(shape)) for name, (dtype, *shape) in kinds.items())
    types = {tensor.name: InputType.parse(tensor, ["images", "seq"]) for tensor in tensors}
    media: Any = MediaInputs((MediaProgram(types, MediaPlaces(PLACE, 4, each=2, padded="pixels")),))
    ids = [[PLACE, PLACE, 9, 9, 9], [9, 9, 9, 9, 9], [PLACE, PLACE, 9, PLACE, PLACE]]
    pixels = torch.randn(3, 2, 3, 2, 2)
    pixels[0, 0], pixels[1] = 0, 0
    given = {"pixels": pixels, "mask": torch.arange(24).view(3, 2, 2, 2), "kinds": (torch.tensor(ids) == PLACE).long()}
    one, none, two = media.of_rows(given, ids, None)
    assert none is None
    assert torch.equal(one.given["media_pixels"], pixels[:1, 1:])
    assert one.given["media_mask"].flatten().tolist() == [4, 5, 6, 7]
    assert torch.equal(two.given["media_pixels"], pixels[2:])
    assert two.given["media_kinds"].tolist() == [[1, 1, 0, 1, 1]]
    with pytest.raises(InputError, match="a prompt has 2 tokens 5, and its images that are not zeros take 4"):
        media.of_rows({**given, "pixels": pixels + 1}, ids, None)
    with pytest.raises(InputError, match=r"`mask` is of \[3, 1\] texts and images; expected \[3, 2\]"):
        media.of_rows({**given, "mask": given["mask"][:, :1]}, ids, None)


def of_any_number(first: int | str) -> Any:
    kinds = {"pixels": ("float32", first, 2), "kinds": ("int64", 1, "seq")}
    tensors = (ManifestTensor(f"media_{name}", dtype, tuple(shape)) for name, (dtype, *shape) in kinds.items())
    taken = tuple(Parameter(f"media_{name}", "POSITIONAL_OR_KEYWORD") for name in kinds)
    signature = CallSignature(taken, {"dict": [[p.name, {"slot": i}] for i, p in enumerate(taken)]}, {"slot": 0})
    entry = ProgramEntry("media", tuple(tensors), (), SYMBOLS, (), signature, ())
    return MediaInputs((MediaProgram.of(entry, MediaPlaces(PLACE, 4, each=2)),))


SYMBOLS = {"images": Symbol(1, None, 2), "seq": Symbol(2, None, 8)}


def test_each_text_has_as_many_images_as_it_has_places_of() -> None:
    media, pixels = of_any_number("images"), torch.arange(6.0).view(3, 2)
    ids = [[PLACE, PLACE, 9, 9, 9], [9, 9, 9, 9, 9], [PLACE, PLACE, 9, PLACE, PLACE]]
    given = {"pixels": pixels, "kinds": (torch.tensor(ids) == PLACE).long()}
    one, none, two = media.of_rows(given, ids, None)
    assert none is None
    assert torch.equal(one.given["media_pixels"], pixels[:1])
    assert torch.equal(two.given["media_pixels"], pixels[1:])
    assert two.given["media_kinds"].tolist() == [[1, 1, 0, 1, 1]]
    with pytest.raises(InputError, match="the prompts have places of 3 images, and `pixels` has 2"):
        media.of_rows({**given, "pixels": pixels[1:]}, ids, None)
    with pytest.raises(InputError, match="a prompt has 3 tokens 5, of which each image takes 2"):
        media.of_rows(given, [ids[0], [PLACE] * 3 + [9, 9], ids[2]], None)


def test_a_number_of_images_that_is_fixed_is_that_of_each_text() -> None:
    media = of_any_number(2)
    given = {"pixels": torch.zeros(2, 2), "kinds": torch.ones(1, 4).long()}
    [found] = media.of_rows(given, [[PLACE] * 4], None)
    assert found.given["media_pixels"].shape == (2, 2)
    with pytest.raises(InputError, match="a prompt has 2 tokens 5, in whose places media stand; this artifact takes 4"):
        media.of_rows(given, [[PLACE, PLACE, 9, 9]], None)
