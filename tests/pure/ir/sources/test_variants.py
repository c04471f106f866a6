"""Calls of a model with other values of the inputs that decide shapes: how they are said, and what goes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ir.errors import CompileError, SourceError
from ir.graph import Graph
from ir.objects.signature import fixed_inputs
from ir.sources import Source
from ir.sources.examples.variants import read_fixed, with_fixed_inputs, with_variants
from passes.compilation.given import read_given
from passes.compilation.programs import captured
from passes.options.options import Options

GRID = torch.tensor([[1, 2], [2, 2]])


class Images(nn.Module):
    """Patches of several images, whose numbers `grid` says; the sum of `extra` is added where there is any."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, grid: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        images = torch.stack([image.mean(0) for image in self.project(x).split(grid.prod(1).tolist())])
        return images if extra is None else images + extra.sum()


def source(**fields: Any) -> Source:
    given: dict[str, Any] = {"args": (torch.randn(6, 4),), "kwargs": {"grid": GRID}, "dynamic_shapes": None}
    given["model"] = Images().eval()
    return Source(name="images", weights={}, **(given | fields))


def grids(graph: Graph) -> dict[str, Any]:
    return {p.name: p.condition for p in graph.programs}


@pytest.mark.parametrize(
    ("texts", "names", "values"),
    [
        ([], (), [{}]),
        (["a"], ("a",), [{}]),
        (["a=3"], ("a",), [{"a": [3]}]),
        (["a=3,2"], ("a",), [{"a": [3, 2]}]),
        (["a=1x2,3x4"], ("a",), [{"a": [[1, 2], [3, 4]]}]),
        (["a", "a=-1x2", "b=7"], ("a", "b"), [{"b": [7]}, {"a": [[-1, 2]], "b": [7]}]),
        (["a=1", "b=2", "a=3", "b=4"], ("a", "b"), [{"a": [1], "b": [2]}, {"a": [3], "b": [4]}]),
    ],
)
def test_what_is_fixed(texts: list[str], names: tuple[str, ...], values: list[dict[str, Any]]) -> None:
    found = read_fixed(texts)
    assert found[0] == names
    assert [{name: tensor.tolist() for name, tensor in each.items()} for each in found[1]] == values


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a=big"], "--fix a=big does not read as INPUT=NUMBERS, such as grid=1x28x42"),
        (["a=1x2,3"], "--fix a=1x2,3 has rows of different lengths"),
        (["a=1", "a=2", "b=1", "b=2", "b=3"], "--fix gives 2 values of a and 3 of another input"),
        (["gird=1x2"], "there is no input `gird` to fix; the model takes x, grid"),
        (["grid", "grid=1x2", "gird"], "there is no input `gird` to fix"),
    ],
)
def test_what_is_no_value_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        with_fixed_inputs(source(), texts)


def test_other_values_take_the_place_of_the_example_s() -> None:
    graph, _ = captured(with_fixed_inputs(source(), ["grid=3x1,1x3", "grid"]))
    assert grids(graph) == {"grid_3x1_1x3": {"grid": [[3, 1], [1, 3]]}, "grid_1x2_2x2": {"grid": [[1, 2], [2, 2]]}}
    alone, _ = captured(with_fixed_inputs(source(), ["grid=3x2"]))
    assert not alone.programs
    assert fixed_inputs(alone.signature.arguments) == {"grid": [[3, 2]]}


MODEL = """
import torch
from {here} import Images
model = Images().eval()
{inputs}
"""
MAKES = "def example_inputs(grid=torch.tensor([[1, 2]])):\n    return torch.randn(int(grid.prod(1).sum()), 4), grid"
FORGETS = "def example_inputs(grid=None):\n    return torch.randn(2, 4), torch.tensor([[1, 2]])"
DICT = "example_inputs = (torch.randn(2, 4), torch.tensor([[1, 2]]))\nvariants = {'wide': lambda: {"
DICT += "'x': torch.randn(4, 4), 'grid': torch.tensor([[2, 2]]), 'extra': torch.ones(2)}}"


def model_file(tmp_path: Path, inputs: str, **options: Any) -> Source:
    path = tmp_path / "images_of_a_file.py"
    path.write_text(MODEL.format(here=__name__, inputs=inputs))
    return read_given(path, (), None, Options.of({"stages": 1, "out": tmp_path / "out", **options}))


def test_a_function_makes_the_inputs_that_go_with_values(tmp_path: Path) -> None:
    found = model_file(tmp_path, MAKES, fix=["grid", "grid=5x2"], dynamic_shapes=["x:1=width"])
    assert [(call.name, tuple(call.args[0].shape), call.fix) for call in found.calls] == [
        ("grid_1x2", (2, 4), ("grid",)),
        ("grid_5x2", (10, 4), ("grid",)),
    ]
    assert [call.dynamic_shapes for call in found.calls] == [{"x": {1: "width"}}] * 2
    with pytest.raises(SourceError, match=r"made for `grid` = \[\[5, 2\]\] have other values of it"):
        model_file(tmp_path, FORGETS, fix=["grid=5x2"])


def test_a_file_may_have_variants_by_name(tmp_path: Path) -> None:
    found = model_file(tmp_path, DICT, dtype="bfloat16", fix=["grid"])
    graph, _ = captured(found)
    assert grids(graph) == {"main": {"grid": [[1, 2]]}, "wide": {"grid": [[2, 2]]}}
    assert [[f"{v.name}: {v.type}" for v in p.inputs] for p in graph.programs] == [
        ["x: bfloat16[2, 4]"],
        ["x: bfloat16[4, 4]", "extra: bfloat16[2]"],
    ]
    assert len(graph.params) == 2
    with pytest.raises(SourceError, match="--fix with several values makes variants, and the source has its own"):
        model_file(tmp_path, DICT, fix=["grid=1x2", "grid=2x1"])


def test_dynamic_sizes_are_those_of_the_example_where_a_variant_has_the_input() -> None:
    shapes = {"x": {1: "width"}, "extra": {0: "length"}}
    example = source(kwargs={"grid": GRID, "extra": torch.ones(3)}, dynamic_shapes=shapes)
    found = with_variants(example, {"plain": (torch.randn(6, 4), GRID)})
    assert found.variants[0].dynamic_shapes == {"x": {1: "width"}}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"main": ()}, "a variant is named 'main'; files are named after it, so it must be a word of its own"),
        ({"a-b": ()}, "a variant is named 'a-b'"),
        ({"wide": 3}, "the variant wide is a int; make it a tuple or a dict of arguments"),
    ],
)
def test_a_variant_that_is_none_is_refused(variants: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        with_variants(source(), variants)


def test_variants_that_nothing_tells_apart_are_refused() -> None:
    same = with_variants(source(), {"again": (torch.randn(6, 4), GRID)})
    with pytest.raises(CompileError, match="the variants main and again take the same calls; name the input"):
        captured(same)


@pytest.mark.slow
def test_an_error_names_its_variant() -> None:
    with pytest.raises(CompileError, match="in the variant wrong: "):
        captured(with_variants(source(), {"wrong": (torch.randn(5, 4), GRID)}))


def test_a_variant_may_have_positional_arguments_and_keywords() -> None:
    x, extra = torch.randn(6, 4), {"grid": GRID, "extra": torch.ones(2)}
    [variant] = with_variants(source(), {"more": ((x,), extra)}).variants
    assert (variant.args, variant.kwargs) == ((x,), extra)


class Pairs(nn.Module):
    def forward(self, images: tuple[torch.Tensor, ...], sizes: dict[str, torch.Tensor]) -> torch.Tensor:
        return images[0] * sizes["height"]


def test_a_tuple_and_a_dict_that_are_arguments_themselves_are_taken_so() -> None:
    given = ((torch.ones(1),), {"height": torch.ones(1)})
    [variant] = with_variants(source(model=Pairs(), args=given, kwargs={}), {"more": given}).variants
    assert (variant.args, variant.kwargs) == (given, {})
