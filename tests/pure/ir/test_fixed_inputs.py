"""Inputs whose values decide shapes: which are fixed, what is noted, and what a call with other values is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.capture import capture
from ir.errors import CaptureError
from ir.graph import Call, Graph, is_whole
from ir.objects.signature import FixedTensor
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.errors import InputError

GRID = torch.tensor([[1, 2], [2, 2]])
X = torch.randn(6, 4)


class Images(nn.Module):
    """Patches of several images, whose numbers `grid` says."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)

    def lengths(self, grid: Tensor) -> list[int]:
        return grid.prod(1).tolist()

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        images = self.project(x).split(self.lengths(grid))
        return torch.stack([image.mean(0) for image in images]) + grid.sum()


class Item(Images):
    def lengths(self, grid: Tensor) -> list[int]:
        return [int(h) * int(w.item()) for h, w in grid]


class Cumulative(Images):
    """Ends of the images, and as many numbers as there are patches."""

    def lengths(self, grid: Tensor) -> list[int]:
        ends = torch.repeat_interleave(grid[:, 1], grid[:, 0]).cumsum(0)
        return [int(ends[0]), int(ends[-1] - ends[0])]


class Several(Images):
    """Two inputs decide, at two places."""

    def forward(self, x: Tensor, grid: Tensor, counts: Tensor) -> Tensor:  # type: ignore[override]
        images = super().forward(x, grid)
        return torch.cat([part.sum(0, keepdim=True) for part in images.split(counts.tolist())])


class Embedded(nn.Module):
    """Token ids that are looked up, and that decide all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 4)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.table(ids) * (2 if ids.sum() > 3 else 1) + x


def fixed(graph: Graph) -> list[Tensor]:
    return [leaf.tensor() for leaf in graph.signature.arguments.leaves if isinstance(leaf, FixedTensor)]


@pytest.mark.parametrize("make", [Images, Item, Cumulative])
def test_an_input_whose_values_decide_shapes_is_fixed_with_a_note(make: type[Images]) -> None:
    graph = capture(make().eval(), (X, GRID))
    assert [v.name for v in graph.inputs] == ["x"]
    assert torch.equal(fixed(graph)[0], GRID)
    assert graph.notes == ("`grid` is fixed at [[1, 2], [2, 2]]: its values decide shapes",)
    assert not any(isinstance(n, Call) and is_whole(n) for n in graph.nodes)


def test_several_inputs_are_fixed_one_after_the_other_and_no_more() -> None:
    flags = torch.tensor([1])  # smaller than those that decide, and tried first

    class Flagged(Several):
        def forward(self, x: Tensor, grid: Tensor, counts: Tensor, flags: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, grid, counts) * flags

    graph = capture(Flagged().eval(), (X, GRID, torch.tensor([1, 1]), flags))
    assert [v.name for v in graph.inputs] == ["x", "flags"]
    assert [t.tolist() for t in fixed(graph)] == [GRID.tolist(), [1, 1]]


def test_an_artifact_takes_the_fixed_values_alone(tmp_path: Path) -> None:
    model = Images().eval()
    compile_model(model, (X, GRID), out=tmp_path / "out", stages=1, progress=False, draw="stages", verify=True)
    with Pipeline.load(tmp_path / "out", devices=["cpu"]) as pipe:
        assert torch.equal(pipe(X + 1, grid=GRID.clone()), model(X + 1, GRID))
        assert pipe.run_named({"x": X}).keys() == pipe.run_named({"x": X, "grid": GRID}).keys()
        expected = r"`grid` is fixed at \[\[1, 2\], \[2, 2\]\] .* got \[\[2, 1\], \[2, 2\]\] \(int64\[2, 2\]\)"
        other = torch.tensor([[2, 1], [2, 2]])
        with pytest.raises(InputError, match=expected):
            pipe(X, other)
        with pytest.raises(InputError, match=expected):
            pipe.run_named({"x": X, "grid": other})
        with pytest.raises(InputError, match=r"got int64\[3, 2\]|got \[\[1, 2\], \[2, 2\], \[1, 1\]\]"):
            pipe(X, torch.tensor([[1, 2], [2, 2], [1, 1]]))
        with pytest.raises(InputError, match=r"argument `grid`.*pass it"):
            pipe(X)


def test_a_size_of_a_fixed_input_stays_where_nobody_named_it() -> None:
    sizes = {"grid": {0: "images"}}
    graph = capture(Images().eval(), (X, GRID), dynamic_shapes=sizes, soft=True, fix=["grid"])
    assert graph.notes == (
        "`grid` is fixed at [[1, 2], [2, 2]]: its values decide shapes",
        "`images` stays at 2, as that of an input that is fixed",
    )
    with pytest.raises(CaptureError, match="`images` cannot be dynamic: the values of `grid` are fixed"):
        capture(Images().eval(), (X, GRID), dynamic_shapes=sizes, fix=["grid"])


def test_an_input_may_be_named() -> None:
    graph = capture(Embedded().eval(), (torch.tensor([1, 2, 3]), X[:3]), fix=["ids"])
    assert [v.name for v in graph.inputs] == ["x"]


def test_what_is_looked_up_is_not_fixed_unless_named() -> None:
    with pytest.raises(CaptureError, match=r"if ids.sum\(\) > 3"):
        capture(Embedded().eval(), (torch.tensor([1, 2, 3]), X[:3]))


@pytest.mark.parametrize(
    ("fix", "message"),
    [
        (["grids"], "there is no input `grids` to fix; the model takes x, grid"),
        (["x"], "the input `x` cannot be fixed: it must hold 1 to 65,536 integers"),
    ],
)
def test_what_cannot_be_fixed_is_refused(fix: list[str], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(Images().eval(), (X, GRID), fix=fix)


def test_torch_is_as_it_was() -> None:
    limit: Any = torch._subclasses.fake_tensor
    before = limit.CONSTANT_NUMEL_LIMIT, torch.tensor
    capture(Images().eval(), (X, GRID))
    assert (limit.CONSTANT_NUMEL_LIMIT, torch.tensor) == before
