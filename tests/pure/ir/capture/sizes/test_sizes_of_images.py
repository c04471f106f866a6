"""Images whose sizes are values of an input, taken apart one by one and recorded at once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, unfold
from transformers.models.pixtral import modeling_pixtral

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.packed.each_tensor import images_as_one, mask_is_known
from ir.errors import CaptureError
from ir.graph import Graph
from ir.sizes import DescribedValues
from ir.text.printer import print_graph

PATCH, SIDE = 2, 2  # pixels of a patch, and patches of a token, along one dimension


class Nobody:
    """Notes nothing."""

    def rows(self, name: str, count: Any, total: Any) -> None:
        pass

    def limit(self, name: str, count: Any, size: Any) -> None:
        pass


def some_sizes(random: Random, unit: int = 1) -> Tensor:
    return torch.tensor(
        [[random.randint(1, 6) * unit, random.randint(1, 6) * unit] for _ in range(random.randint(1, 4))]
    )


def patches_of(images: Tensor, sizes: Tensor) -> Tensor:
    """The patches of all images `[images, channels, rows, columns]` in rows, with their places."""
    found = [image[..., : (size[0] // PATCH), : (size[1] // PATCH)] for image, size in zip(images, sizes, strict=False)]
    places = [
        torch.stack(
            [g.flatten() for g in torch.meshgrid(torch.arange(f.shape[-2]), torch.arange(f.shape[-1]), indexing="ij")],
            dim=-1,
        )
        for f in found
    ]
    rows = torch.cat([f.flatten(1).T for f in found], dim=0)
    return torch.cat([rows, torch.cat(places, dim=0).to(rows.dtype)], dim=1)


def tokens_of(rows: Tensor, sizes: Tensor) -> Tensor:
    """Rows of several patches of each image, of those of all."""
    made = []
    shapes: Any = [(size[0] // PATCH, size[1] // PATCH) for size in sizes]
    for i, piece in enumerate(rows.split([h * w for h, w in shapes])):
        h, w = shapes[i]
        blocks = unfold(piece.view(h, w, rows.shape[1]).permute(2, 0, 1).unsqueeze(0), kernel_size=SIDE, stride=SIDE)
        made.append(blocks.view(rows.shape[1] * SIDE**2, -1).t())
    return torch.cat(made, dim=0)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_made_of_each_image_lies_in_front_of_what_is_made_at_once(seed: int) -> None:
    sizes = some_sizes(Random(seed), unit=PATCH * SIDE)
    images = torch.randn(len(sizes), 3, *(sizes.amax(0) // PATCH).tolist())
    counts = [(int(h) // PATCH, int(w) // PATCH) for h, w in sizes.tolist()]
    wanted = patches_of(images, torch.tensor(counts) * PATCH)
    with images_as_one("sizes", sizes, lambda one, other: one == other, Nobody()):
        made = patches_of(images, sizes)
        tokens = tokens_of(made, sizes)
    assert torch.equal(made[: len(wanted)], wanted)
    assert len(made) == len(sizes) * images.shape[2] * images.shape[3]
    plain = tokens_of(wanted, sizes)
    assert torch.equal(tokens[: len(plain)], plain)


class Tower(nn.Module):
    """Rows of the images `[images, 4, rows, columns]` of these sizes, each of which attends to its own image."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, pixels: Tensor, image_sizes: Tensor) -> Tensor:
        return self.linear(self.scaled(patches_of(pixels, image_sizes), image_sizes))

    def scaled(self, rows: Tensor, sizes: Tensor) -> Tensor:
        return rows


class Counting(Tower):
    def scaled(self, rows: Tensor, sizes: Tensor) -> Tensor:
        return rows * len(list(sizes))


class Averaging(Tower):
    def scaled(self, rows: Tensor, sizes: Tensor) -> Tensor:
        return rows - rows.mean(0)


class Comparing(Tower):
    def scaled(self, rows: Tensor, sizes: Tensor) -> Tensor:
        return rows * sum(1 if size[0] > 2 else 2 for size in sizes)


class Model(nn.Module):
    """Texts with the rows of images in the places of 3, and these rows; `says`: whether it asserts their number."""

    def __init__(self, tower: Tower, says: bool = True) -> None:
        super().__init__()
        self.tower, self.words, self.says = tower, nn.Embedding(10, 4), says

    def forward(self, ids: Tensor, pixels: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        rows, words = self.tower(pixels, image_sizes=image_sizes), self.words(ids)
        places = ids == 3
        if self.says:
            torch._check_tensor_all(places.sum() * words.shape[-1] == rows.numel())
        words = words.masked_scatter(places[..., None], rows)
        return scaled_dot_product_attention(words, words, words), rows


def given(sizes: list[list[int]]) -> list[Tensor]:
    known = torch.tensor(sizes)
    places = int((known // PATCH).prod(1).sum())
    pixels = torch.randn(len(sizes), 4, *(known.amax(0) // PATCH).tolist())
    return [torch.tensor([[1, *[3] * places, 2]]), pixels, known]


def recorded(model: nn.Module, **terms: Any) -> Graph:
    shapes: Any = {"ids": {1: "seq"}, "pixels": {0: "images", 2: "rows", 3: "columns"}, "image_sizes": {0: "images"}}
    return capture(model, tuple(given([[8, 12], [16, 4]])), dynamic_shapes=shapes, **terms)


@pytest.mark.slow
class TestTowersOfSizes:
    """What runs for each image is recorded once, where nothing tells the images apart but their sizes."""

    def test_take_images_of_other_sizes_and_numbers(self) -> None:
        model = Model(Tower()).eval()
        graph = recorded(model)
        [condition] = graph.counts
        assert isinstance(condition, DescribedValues)
        assert (condition.input, condition.value, condition.rows) == ("ids", 3, "image_sizes")
        assert (condition.divisors, condition.runs) == ((PATCH, PATCH), False)
        assert "3s in ids are as many as products of rows of image_sizes by 2x2, at most " in print_graph(graph)
        assert any("results with a row for each place of an image are left out" in note for note in graph.notes)
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        for sizes in ([[6, 10]], [[4, 4], [2, 12], [5, 7], [8, 2]]):
            with torch.no_grad():
                wanted, _ = model(*(inputs := given(sizes)))
            [found] = interpret(graph, inputs, weights).outputs
            torch.testing.assert_close(found, wanted)

    @pytest.mark.parametrize(
        "model",
        [Model(Counting()), Model(Averaging()), Model(Comparing()), Model(Tower(), says=False)],
        ids=["counting", "averaging", "comparing", "silent"],
    )
    def test_that_do_otherwise_have_their_sizes_fixed(self, model: nn.Module) -> None:
        graph = recorded(model.eval(), soft=True)
        assert not any(isinstance(condition, DescribedValues) for condition in graph.counts)
        assert any("`image_sizes` is fixed at [[8, 12], [16, 4]]" in note for note in graph.notes)


@pytest.mark.slow
def test_rows_of_images_that_nothing_counts_are_refused() -> None:
    with pytest.raises(CaptureError, match="rows of images are as many as their sizes say, and nothing says where"):
        recorded(Model(Tower(), says=False).eval())


def test_the_mask_of_transformers_is_the_one_that_is_recorded() -> None:
    assert modeling_pixtral.generate_block_attention_mask([2, 1], torch.zeros(1, 3, 4)).shape == (1, 1, 3, 3)
    assert mask_is_known()
