"""Inputs whose values decide shapes: which are fixed, what is noted, and what a call with other values is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor

from ir.capture import capture
from ir.errors import CaptureError
from ir.graph import Call, Graph, is_whole
from ir.objects.signature import FixedTensor
from passes.compilation.api import compile_model
from passes.propagate_shapes import PropagateShapes
from runtime import Pipeline
from runtime.errors import InputError
from tests.support.checking import Call as Inputs
from tests.support.checking import run_graph, run_model
from tests.support.models.planning import machine

pytestmark = pytest.mark.slow

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


class Ends(Images):
    """Ends of the images are written into zeros, which the code made."""

    def lengths(self, grid: Tensor) -> list[int]:
        ends = torch.zeros(len(grid) + 1, dtype=torch.int64)
        ends[1:] = grid.prod(1).cumsum(0)
        return (ends[1:] - ends[:-1]).tolist()


class Chosen(Images):
    """Rows are chosen by known indices, after a change in place that others see."""

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        x = self.project(x)
        x.view(-1).add_(1)
        return x[(grid > 1).nonzero()[:, 0]] * x[torch.multinomial(torch.ones(len(grid)), 2)].sum(0)


class Repeated(Images):
    """Rows are repeated as often as the grid says."""

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        return self.project(x)[torch.repeat_interleave(torch.arange(2), grid.prod(1))]


class Picked(Images):
    """Rows are read and written at a mask."""

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        x, rows = self.project(x), torch.repeat_interleave(grid[:, 0] > 1, grid.prod(1))
        x[rows, :] = x[rows, :] + torch.ones(int(rows.sum()), 4)
        return x


class Buffered(nn.Module):
    """A buffer decides, in several layers."""

    chance: Tensor

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("chance", torch.tensor([width]))

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.chance[0] > 0 else x


class Counting(Buffered):
    """What decides is counted up."""

    def forward(self, x: Tensor) -> Tensor:
        self.chance += 1
        return super().forward(x)


class Padded(nn.Module):
    """The size of what is returned is that of the input, rounded up by a tensor."""

    stride: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor(4))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.ceil(x.shape[0] / self.stride).to(torch.int64) * self.stride
        return nn.functional.pad(x, (0, 0, 0, int(length - x.shape[0])))


class Distant(nn.Module):
    """A table of distances, as long as positions say, and layers around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        places: Any = torch.arange(x.shape[1]).square()
        distances = torch.arange(places[0] - places[-1], places[-1] + 1)
        return self.last(self.first(x) * distances.sum() + distances.shape[0])


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Distant()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + 1


class Masked(nn.Module):
    """The lengths that a padding mask says decide in the model itself."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.stack([row[: int(n)].sum(0) for row, n in zip(x, mask.sum(1), strict=True)])


def fixed(graph: Graph) -> list[Tensor]:
    return [leaf.tensor() for leaf in graph.signature.arguments.leaves if isinstance(leaf, FixedTensor)]


@pytest.mark.parametrize("make", [Images, Item, Cumulative, Ends, Chosen, Repeated, Picked])
def test_an_input_whose_values_decide_shapes_is_fixed_with_a_note(make: type[Images]) -> None:
    graph = capture(make().eval(), (X, GRID))
    assert [v.name for v in graph.inputs] == ["x"]
    assert torch.equal(fixed(graph)[0], GRID)
    assert graph.notes == ("`grid` is fixed at [[1, 2], [2, 2]]: its values decide shapes",)
    assert not any(isinstance(n, Call) and is_whole(n) for n in graph.nodes)
    PropagateShapes().run(graph, machine(1))  # runs each operator on its types


def test_a_buffer_whose_values_decide_is_fixed_with_those_of_its_kind() -> None:
    model = nn.Sequential(Buffered(), Buffered(0.0), Buffered(), nn.Linear(4, 4)).eval()
    graph = capture(model, (X,))
    assert graph.notes == (
        "0.chance is fixed at [1.0]: its values decide shapes",
        "1.chance is fixed at [0.0]: its values decide shapes",
        "2.chance is fixed at [1.0]: its values decide shapes",
    )
    call = Inputs.of(X)
    [expected], [found] = run_model(model, [call]), run_graph(graph, [call], dict(model.state_dict()))
    assert torch.equal(expected, found)


def test_a_buffer_that_changes_is_not_fixed() -> None:
    with pytest.raises(CaptureError, match="it decides by the values of a tensor"):
        capture(Counting().eval(), (X,))


def test_a_size_that_decides_as_a_value_stays_where_it_may() -> None:
    sizes = {"x": {0: "rows"}}
    [note, *_] = capture(Padded().eval(), (X,), dynamic_shapes=sizes, soft=True).notes
    assert note.startswith("`rows` cannot be dynamic: it decides by the values of a tensor, in the model")
    with pytest.raises(CaptureError, match="leave `rows` out of the dynamic sizes"):
        capture(Padded().eval(), (X,), dynamic_shapes=sizes)


def test_what_is_made_of_numbers_alone_is_known_where_it_decides() -> None:
    graph = capture(Distant().eval(), (torch.randn(2, 3, 4),), dynamic_shapes={"x": {0: "batch"}})
    assert not graph.notes
    assert [str(s) for s in graph.ranges] == ["batch"]


def test_a_size_stays_rather_than_most_of_the_model_is_kept_whole() -> None:
    x = torch.randn(2, 3, 4)
    graph = capture(Around().eval(), (x,), dynamic_shapes={"x": {0: "batch", 1: "seq"}}, soft=True)
    assert not graph.whole
    [note] = graph.notes
    assert note.startswith("`seq` cannot be dynamic: a size depends on the values of a tensor")
    kept = capture(Around().eval(), (x,), dynamic_shapes={"x": {0: "batch", 1: "seq"}})
    assert [whole.path for whole in kept.whole] == ["body"]


def test_a_padding_mask_is_fixed_where_nothing_else_helps() -> None:
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])
    sizes = {"x": {0: "batch", 1: "seq"}, "mask": {0: "batch", 1: "seq"}}
    graph = capture(Masked().eval(), (x, mask), dynamic_shapes=sizes, soft=True)
    assert "`mask` is fixed at [[1, 1, 1], [1, 1, 0]]: its values decide shapes" in graph.notes
    with pytest.raises(CaptureError, match="fix the values of `mask` at those of the example: --fix mask"):
        capture(Masked().eval(), (x, mask), dynamic_shapes=sizes)


def test_many_values_are_not_all_noted() -> None:
    grid = torch.ones(100, dtype=torch.int64)
    [note] = capture(Images().eval(), (torch.randn(100, 4), grid[:, None]), fix=["grid"]).notes
    assert note == "`grid` is fixed at the 100 values [100, 1] of the example: its values decide shapes"


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


def test_a_size_that_fills_a_tensor_stays_free_beside_fixed_values() -> None:
    class Limited(Images):
        def forward(self, x: Tensor, grid: Tensor) -> Tensor:
            return torch.where(grid > 1, grid, x.shape[0]).sum() + x.sum()

    graph = capture(Limited().eval(), (X, GRID), dynamic_shapes={"x": {0: "patches"}}, fix=["grid"])
    assert [str(symbol) for symbol in graph.ranges] == ["patches"]


def test_an_input_may_be_named() -> None:
    graph = capture(Embedded().eval(), (torch.tensor([1, 2, 3]), X[:3]), fix=["ids"])
    assert [v.name for v in graph.inputs] == ["x"]


def test_what_is_looked_up_is_not_fixed_unless_named() -> None:
    with pytest.raises(CaptureError, match=r"if ids.sum\(\) > 3"):
        capture(Embedded().eval(), (torch.tensor([1, 2, 3]), X[:3]))


def test_one_input_may_change_at_least() -> None:
    with pytest.raises(CaptureError, match="all inputs are to be fixed; leave one that may change"):
        capture(nn.Embedding(8, 4), (torch.tensor([1, 2]),), fix=["input"])


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
    limit: Any = fake_tensor
    before = limit.CONSTANT_NUMEL_LIMIT, torch.tensor
    capture(Images().eval(), (X, GRID))
    assert (limit.CONSTANT_NUMEL_LIMIT, torch.tensor) == before
