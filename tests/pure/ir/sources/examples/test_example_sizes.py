"""Example inputs of the sizes that a user names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from ir.capture.export.example import layout_of
from ir.errors import CompileError, SourceError
from ir.sources import Source
from ir.sources.examples.example_sizes import with_example_sizes
from ir.sources.source import Variant
from passes.options.options import Options


class Pair(nn.Module):
    def forward(self, ids: torch.Tensor, more: dict[str, torch.Tensor], images: torch.Tensor | None = None) -> Any:
        return ids, more, images


IDS, MASK = torch.arange(8).reshape(2, 4), torch.ones(2, 4, dtype=torch.bool)
SHAPES = {
    "ids": {0: "batch", 1: Dim("seq", min=2, max=512)},
    "more": {"mask": {0: "batch", 1: "seq"}},
    "images": {0: "batch"},
}


def source(**fields: Any) -> Source:
    given: dict[str, Any] = {"args": (IDS,), "kwargs": {"more": {"mask": MASK}}, "dynamic_shapes": SHAPES}
    return Source(name="pair", model=Pair(), weights={}, made_up=True, **(given | fields))


def test_a_size_changes_in_all_inputs_that_have_it() -> None:
    """The first and the last value of each row stay at its ends."""
    made = with_example_sizes(source(), {"ids": (3, 6)})
    assert made.args[0].tolist() == [[0, 1, 2, 2, 2, 3], [0, 1, 2, 2, 2, 3], [4, 5, 6, 6, 6, 7]]
    assert made.kwargs["more"]["mask"].shape == (3, 6)
    assert made.kwargs["more"]["mask"].dtype == torch.bool
    assert not made.made_up


def test_fewer_values_and_one() -> None:
    made = with_example_sizes(source(), {"more.mask": (1, 3)})
    assert made.args[0].tolist() == [[0, 1, 3]]


def test_without_shapes_all_stays() -> None:
    given = source()
    assert with_example_sizes(given, {}) is given
    assert with_example_sizes(given, {"ids": (2, 4)}).args[0] is IDS


def test_layouts_and_what_has_no_size_of_a_name_stay() -> None:
    images = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last).requires_grad_()
    [_, (_, made)] = with_example_sizes(source(kwargs={"more": {}, "images": images}), {"ids": (7, 4)}).kwargs.items()
    assert made.shape == (7, 3, 5, 5)
    assert made.requires_grad
    assert layout_of(made) == layout_of(images)
    assert torch.equal(made[-1], images[-1])


def test_every_call_that_has_the_input_gets_the_size() -> None:
    wide = Variant("wide", (torch.zeros(2, 9, dtype=torch.int64), {"mask": torch.zeros(2, 9)}), {}, SHAPES)
    made = with_example_sizes(source(variants=(wide,)), {"ids": (1, 5)})
    assert [call.args[0].shape for call in made.calls] == [(1, 5), (1, 5)]


def test_an_error_says_of_which_variant_it_is() -> None:
    short = Variant("short", (torch.zeros(2, 3, dtype=torch.int64), {}), {}, {"ids": {0: "batch"}})
    message = (
        "in the variant short: dimension 1 of `ids` is fixed at 3, and 5 is given; .*; --workload names sizes of ea"
    )
    with pytest.raises(SourceError, match=message):
        with_example_sizes(source(variants=(short,)), {"ids": (2, 5)})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"words": (1, 5)}, "there is no input `words` to give a size; the model takes ids, more.mask, images"),
        ({"ids": (4,)}, r"the example's `ids` has 2 dimensions \(2x4\), and 1 are given"),
        ({"ids": (2, 1)}, "seq, dimension 1 of `ids`, may be 2 to 512, and 1 is given"),
        ({"ids": (2, 513)}, "seq, dimension 1 of `ids`, may be 2 to 512, and 513 is given"),
        ({"ids": (3, 4), "more.mask": (5, 4)}, "the example has batch 3 and 5; give it one size"),
        (
            {"images": (2, 3, 6, 5)},
            "dimension 2 of `images` is fixed at 5, and 6 is given; of its sizes batch .dimension 0. may change",
        ),
    ],
)
def test_sizes_that_cannot_be(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    given = source(kwargs={"more": {"mask": MASK}, "images": torch.zeros(2, 3, 5, 5)})
    with pytest.raises(SourceError, match=f"^{message}$"):
        with_example_sizes(given, shapes)


def test_where_no_size_may_change() -> None:
    with pytest.raises(SourceError, match="dimension 1 of `ids` is fixed at 4, and 6 is given; --dynamic names the s"):
        with_example_sizes(source(dynamic_shapes=None), {"ids": (2, 6)})


def test_shapes_are_given_alike_as_texts_and_as_numbers() -> None:
    texts = Options(example=["a=1x4096,b.c=3", "d=2"])  # type: ignore[arg-type]
    assert texts == Options(example={"a": (1, 4096), "b.c": [3], "d": (2,)})  # type: ignore[arg-type]
    assert texts.example == (("a", (1, 4096)), ("b.c", (3,)), ("d", (2,)))


@pytest.mark.parametrize("given", ["a", "a=", "a=1x", "a=0x2", "a=1,a=2", {"a": (1.5,)}, {"a": 3}, 3])
def test_texts_that_are_no_shapes(given: Any) -> None:
    with pytest.raises(CompileError, match="must be shapes of inputs, each once, such as input_ids=1x4096"):
        Options(example=given)
