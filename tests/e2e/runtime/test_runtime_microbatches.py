"""`pipe(batch, microbatches=n)`: a batch in parts, and its outputs in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from passes import compile_model
from runtime import InputError, Pipeline, StageError
from runtime.manifest.manifest import Microbatching, Symbol
from tests.support.artifacts.by_hand import Part, chain, tensor, write

X = torch.arange(28.0).reshape(7, 4)


@pytest.mark.parametrize(("count", "sizes"), [(1, [7]), (2, [3, 4]), (3, [2, 2, 3]), (7, [1] * 7), (9, [1] * 7)])
def test_parts_are_even_and_their_outputs_those_of_the_batch(tmp_path: Path, count: int, sizes: list[int]) -> None:
    with Pipeline.load(chain(tmp_path)) as pipe, pipe.trace() as trace:
        assert torch.equal(pipe(X, microbatches=count), pipe(X))
        assert torch.equal(pipe.submit(x=X, microbatches=count).result(), pipe(X))
    assert [run.sent // 16 for run in trace.runs if run.stage == 1] == [*sizes, 7, *sizes, 7]


def test_sizes_stand_anywhere_and_some_inputs_are_for_all(tmp_path: Path) -> None:
    """`late` has the batch last, `scale` is read whole by every microbatch, and a size of the batch is returned."""
    parts = [
        Part("return x + 1, (x * scale).T", {"x": None, "scale": None}, {"early": ((), (0,)), "h": ((1,), ())}),
        Part("return (h + y + len,)", {"h": 0, "y": None}, {"late": ((), (1,))}, sizes=("len",)),
    ]
    path = write(
        tmp_path,
        parts,
        inputs=[tensor("scale", 4), tensor("x"), tensor("y", 4, "batch"), tensor("z", "len")],
        outputs=[tensor("early"), tensor("late", 4, "batch")],
        symbols={"batch": Symbol(1, None, 2), "len": Symbol(1, None, 2)},
        returns={"tuple": [{"slot": 0}, {"slot": 1}, {"size": "2*batch"}]},
        microbatching=Microbatching("batch", (None, 0, 1, None), (0, 1), ""),
    )
    with Pipeline.load(path) as pipe:
        arguments = (torch.randn(4), X, torch.randn(4, 7), torch.ones(3))
        whole, split = pipe(*arguments), pipe(*arguments, microbatches=3)
        part = pipe(*arguments, microbatches=3, outputs=["late[1]", "early[:, -1]"])
    assert torch.equal(whole[0], split[0])
    assert torch.equal(whole[1], split[1])
    assert whole[2] == split[2] == 14
    assert torch.equal(part["late[1]"], whole[1][1])
    assert torch.equal(part["early[:, -1]"], whole[0][:, -1])


def test_a_part_that_fails_fails_the_batch(tmp_path: Path) -> None:
    parts = [
        Part("return (x,)", {"x": None}, {"h": ((1,), ())}),
        Part("if h[0, 0] == 0: raise KeyError('zero')\nreturn (h,)", {"h": 0}, {"y": ((), (0,))}),
    ]
    with Pipeline.load(write(tmp_path, parts)) as pipe:
        for x in (X, X.flip(0)):
            with pytest.raises(StageError, match="KeyError: 'zero'"):
                pipe(x, microbatches=7)
        assert torch.equal(pipe(X + 1, microbatches=7), X + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: chain(folder, microbatching=Microbatching(reason="softmax")), "cannot be split: softmax"),
        (lambda folder: chain(folder, microbatching=Microbatching()), "does not say along which size; compile"),
        (lambda folder: chain(folder, symbols={"batch": Symbol(3, 8, 4)}), "`batch` is 2 in a microbatch; expected at"),
        (lambda folder: chain(folder, guards=["batch % 7 == 0"]), "sizes with batch % 7 == 0"),
    ],
)
def test_a_batch_that_cannot_be_split_runs_whole(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with Pipeline.load(make(tmp_path)) as pipe:
        with pytest.raises(InputError, match=message):
            pipe(X, microbatches=3)
        pipe(X)


@pytest.mark.parametrize("count", [0, -1])
def test_there_is_at_least_one(tmp_path: Path, count: int) -> None:
    with Pipeline.load(chain(tmp_path)) as pipe, pytest.raises(InputError, match=f"microbatches is {count}"):
        pipe(X, microbatches=count)


class Classifier(nn.Module):
    """A prediction for each row, and the table that all share."""

    def __init__(self, over: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        self.over = over

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x.softmax(self.over), self.layers[0].weight * 2


@pytest.mark.parametrize("over", [0, 1])
def test_what_the_compiler_found_is_in_the_artifact(tmp_path: Path, over: int) -> None:
    model = Classifier(over).eval()
    compile_model(model, (X,), out=tmp_path / "out", stages=2, dynamic_shapes={"x": {0: "batch"}})
    with Pipeline.load(tmp_path / "out") as pipe, torch.no_grad():
        if over == 0:
            with pytest.raises(InputError, match=r"along `batch`, softmax in the model \(tests/e2e/.*over the rows"):
                pipe(X, microbatches=2)
        else:
            for found, expected in zip(pipe(X, microbatches=2), model(X), strict=True):
                torch.testing.assert_close(found, expected)
