"""Values that an input must hold so often, as a model's own code asserts: the places of images among token ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.analysis.bind import bind_sizes
from ir.analysis.programs import merged, program_of
from ir.capture import capture
from ir.graph import Graph
from ir.serialized.graph_table import Uncut, graph_table, uncut_of
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.errors import InputError

IDS, IMAGES = torch.tensor([[9, 3, 3, 3], [3, 3, 3, 9]]), torch.randn(3, 2, 4)

Check = Callable[[Tensor, Tensor], Tensor]


class Filled(nn.Module):
    """Rows of images in the places of the id 3, once `check` holds for ids and rows."""

    def __init__(self, check: Check) -> None:
        super().__init__()
        self.table, self.check = nn.Embedding(10, 4), check

    def forward(self, ids: Tensor, images: Tensor) -> Tensor:
        words, rows = self.table(ids), images.flatten(end_dim=1)
        torch._check_tensor_all(self.check(ids, rows))
        return words.masked_scatter((ids == 3).unsqueeze(-1), rows)


def asserted(check: Check) -> Graph:
    sizes = {"ids": {0: "batch", 1: "seq"}, "images": {0: "images"}}
    return capture(Filled(check), (IDS, IMAGES), dynamic_shapes=sizes)


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda ids, rows: (ids == 3).sum() * rows.shape[-1] == rows.numel(), "2*images of ids are 3"),
        (
            lambda ids, rows: (ids.transpose(0, 1) == 3).unsqueeze(-1).int().sum() == rows.shape[0],
            "2*images of ids are 3",
        ),
        (lambda ids, rows: (ids == 3).sum() == 6, "6 of ids are 3"),
        (lambda ids, rows: (ids == 3).sum() >= rows.shape[0], None),
        (lambda ids, rows: (ids[:, 1:] == 3).sum() == 5, None),  # the first of each text may be anything
        (lambda ids, rows: (ids + 1 == 4).sum() == rows.shape[0], None),
        (lambda ids, rows: (ids.bool() == 1).sum() == 8, None),
        (lambda ids, rows: rows.isfinite(), None),
    ],
)
def test_what_is_asserted_of_a_count_is_known(check: Check, expected: str | None) -> None:
    assert list(map(str, asserted(check).counts)) == ([] if expected is None else [expected])


class Split(Filled):
    """As above, with images that `grid` takes apart."""

    def forward(self, ids: Tensor, images: Tensor, grid: Tensor) -> Tensor:  # type: ignore[override]
        rows = images.flatten(end_dim=1).split(grid.tolist())
        return super().forward(ids, torch.cat([row.sin() for row in rows])[:, None])


def test_what_is_asserted_beside_a_fixed_input_is_known() -> None:
    model, grid = Split(lambda ids, rows: (ids == 3).sum() * 4 == rows.numel()), torch.tensor([2, 4])
    graph = capture(model, (IDS, IMAGES, grid), dynamic_shapes={"ids": {0: "batch"}}, fix=["grid"])
    assert list(map(str, graph.counts)) == ["6 of ids are 3"]


@pytest.mark.slow
def test_a_call_with_another_count_is_refused_before_it_runs(tmp_path: Path) -> None:
    model = Filled(lambda ids, rows: (ids == 3).sum() == rows.shape[0])
    sizes = {"ids": {0: "batch", 1: "seq"}, "images": {0: "images"}}
    options: dict[str, Any] = {"stages": 2, "progress": False, "draw": "stages", "time_limit": 1, "size_limit": 0}
    compile_model(model, (IDS, IMAGES), dynamic_shapes=sizes, out=tmp_path / "out", **options)
    with Pipeline.load(tmp_path / "out", devices=["cpu"]) as pipe, torch.no_grad():
        assert torch.equal(pipe(IDS, IMAGES), model(IDS, IMAGES))
        assert torch.equal(pipe(IDS[:1, :3], IMAGES[:1]), model(IDS[:1, :3], IMAGES[:1]))
        for images, asked in ((2, 4), (4, 8)):
            message = rf"`ids` holds the value 3 6 times; the other inputs ask for 2\*images = {asked}, as images is"
            with pytest.raises(InputError, match=message):
                pipe(IDS, torch.randn(images, 2, 4))


def test_counts_stay_in_programs_in_files_and_at_fixed_sizes() -> None:
    graph = asserted(lambda ids, rows: (ids == 3).sum() == rows.shape[0])
    union = merged([("one", {}, 1.0, graph), ("two", {}, 1.0, replace(graph, counts=()))])
    assert [program.counts for program in union.programs] == [graph.counts, ()]
    assert program_of(union, 0).counts == graph.counts
    bound = bind_sizes(union, {"images": 4})
    assert [str(count) for found in (bound, bound.programs[0]) for count in found.counts] == ["8 of ids are 3"] * 2
    table, tensors = graph_table(Uncut(graph))
    assert uncut_of(json.loads(json.dumps(table)), tensors.__getitem__).graph.counts == graph.counts
