"""Images of several texts in one tensor, of which those that are all zeros are left out, recorded with the others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.packed.padding import SizesOfAny, leave_out_padding
from ir.errors import CaptureError
from ir.graph import Graph
from ir.sizes import ValueCount

pytestmark = pytest.mark.slow

PLACE, EACH = 3, 2


class Model(nn.Module):
    """Embeddings of ids with rows of images in their places."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.tower = nn.Embedding(8, 4), nn.Linear(12, 4 * EACH)

    def forward(self, ids: Tensor, pixel_values: Tensor, pixel_attention_mask: Tensor) -> Tensor:
        rows = self.get_image_features(pixel_values, pixel_attention_mask)
        return self.placed(self.words(ids), ids == PLACE, rows)

    def get_image_features(self, pixel_values: Tensor, pixel_attention_mask: Tensor) -> Tensor:
        images = pixel_values.flatten(0, 1)
        real = self.real(images)
        images, mask = images[real], pixel_attention_mask.flatten(0, 1)[real]
        return self.scaled(self.tower((images * mask[:, None]).flatten(1)).view(-1, EACH, 4))

    def real(self, images: Tensor) -> Tensor:
        return (images == 0.0).sum(dim=(-1, -2, -3)) != images.shape[1:].numel()

    def scaled(self, rows: Tensor) -> Tensor:
        return rows

    def placed(self, words: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        return words.masked_scatter(places.unsqueeze(-1), rows)


class ByIndices(Model):
    """The rows are read by the number of an image, and that of a row in it, as SmolVLM does."""

    def placed(self, words: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        before = places.sum(1).cumsum(0) - places.sum(1)
        index = before[:, None] + places.cumsum(1) - 1
        made = torch.zeros_like(words)
        made[places] = rows[(index // EACH)[places], (index % EACH)[places], :]
        return torch.where(places.unsqueeze(-1), made, words)


class Averaging(Model):
    def scaled(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(0)


class Positive(Model):
    def real(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1) > 0


class Added(Model):
    """The sum of all images is added to words: it is not said where they are."""

    def placed(self, words: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        return words + rows.sum((0, 1))


def example(*texts: str) -> dict[str, Tensor]:
    """Texts by their images: `x` is one, `.` padding."""
    ids = torch.full((len(texts), 9), 5)
    pixels = torch.randn(len(texts), max(map(len, texts)), 3, 2, 2)
    for row, image, text in zip(ids, pixels, texts, strict=True):
        row[1 : 1 + EACH * text.count("x")] = PLACE
        for i in range(image.shape[0]):
            image[i] *= text[i : i + 1] == "x"
    return {
        "ids": ids,
        "pixel_values": pixels,
        "pixel_attention_mask": (torch.rand(pixels[:, :, 0].shape) > 0.3).long(),
    }


DIMS = {0: "batch", 1: "images"}
DYNAMIC: Any = {"ids": {0: "batch"}, "pixel_values": DIMS, "pixel_attention_mask": DIMS}


def captured(model: nn.Module) -> Graph:
    return capture(model, kwargs=example("xx", "x", ".x"), dynamic_shapes=DYNAMIC)


@pytest.mark.parametrize("make", [Model, ByIndices])
def test_any_number_of_images_is_taken_whichever_are_padding(make: type[Model]) -> None:
    model = make()
    graph = captured(model)
    assert graph.counts == (ValueCount("ids", PLACE, EACH, "pixel_values"),)
    assert str(graph.counts[0]) == "2 of ids are 3, for each of pixel_values"
    for texts in (["x"], ["x", "..x"], ["..", "xx", "", ".x"], ["xxx", "x.x"]):
        given = example(*texts)
        with torch.no_grad():
            made, _ = interpret(graph, tuple(given.values()), dict(model.named_parameters()))
            torch.testing.assert_close(made[0], model(**given))


def test_images_that_are_not_kept_apart_are_not_recorded_with_padding() -> None:
    with pytest.raises(CaptureError):
        captured(Averaging())


def test_images_that_are_left_out_for_other_reasons_are_not_padding() -> None:
    assert leave_out_padding(model := Model()) == [model]
    assert leave_out_padding(Positive()) == []
    with pytest.raises(CaptureError):
        captured(Positive())


def test_rows_of_images_without_places_are_refused() -> None:
    with pytest.raises(
        CaptureError, match="images are padding where they are zeros, and nothing says where the others"
    ):
        captured(Added())


def test_the_product_of_sizes_may_be_of_any() -> None:
    sizes = SizesOfAny((2, 3, 4))
    assert sizes[1:].numel() == 12
    assert sizes[0] == 2
