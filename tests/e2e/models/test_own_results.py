"""What a call returns is the caller's: a change of it in place reaches no input, no stage and no other call."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from passes.compilation.api import compile_model
from runtime import Pipeline


class Holder(nn.Module):
    """Two layers around a function of the module and its input."""

    def __init__(self, compute: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.ones(4))
        self.register_buffer("table", torch.arange(6.0).view(2, 3), persistent=False)
        self.register_buffer("total", torch.zeros(4))
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.last(torch.tanh(self.first(x))), self.compute(self, x)


def added(model: Any, x: Tensor) -> Tensor:
    model.total.add_(x.sum(0))
    return model.total


def before_and_after(model: Any, x: Tensor) -> Any:
    before = model.total.view(2, 2) * 1
    model.total.add_(x.sum(0))
    return before, model.total[1:]


def apart(model: Any, x: Tensor) -> Any:
    y = model.first(x)
    return y, y * 1, (y * 1)[1:], y.argmax(-1), y.argmax(-1) + 0


def stateless(model: Any, x: Tensor) -> dict[str, Any]:
    return {
        "a constant": torch.tensor([1.0, 2.0]),
        "a view of a constant": torch.tensor([1.0, 2.0])[1:],
        "a buffer": model.table,
        "a view of a buffer": model.table.t(),
        "a parameter": model.weight,
        "an expanded parameter": model.weight.expand(3, 4),
        "the input": x,
        "a product by 1": x * 1,
        "a view of the input": x[1:].transpose(0, 1),
        "views without a schema": torch.broadcast_tensors(x, model.weight),
        "a cast to the same dtype": x.float(),
    }


def flat(result: Any) -> list[Tensor]:
    return [t.detach() for t in tree_leaves(result)]


@pytest.mark.parametrize("compute", [stateless, added, before_and_after, apart])
def test_changing_a_result_changes_nothing_else(compute: Callable[[Any, Tensor], Any], tmp_path: Path) -> None:
    model = Holder(compute).eval()
    compile_model(deepcopy(model), (torch.randn(3, 4),), out=tmp_path, stages=2, dynamic_shapes={"x": {0: "batch"}})
    batches = [torch.randn(5, 4) for _ in range(3)]
    with torch.no_grad():
        expected = [[t.clone() for t in flat(model(x))] for x in batches]
    with Pipeline.load(tmp_path) as pipe:
        given = [x.clone() for x in batches]
        for found, wanted in zip([*map(flat, pipe.map(given))], expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
        pipe.reset()
        for x, own, wanted in zip(given, batches, expected, strict=True):
            found = flat(pipe(x))
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)
            assert shared(found) <= shared(flat(model(x.clone())))
            for result in found:
                result.fill_(7)
            assert torch.equal(x, own)


def shared(results: list[Tensor]) -> set[tuple[int, int]]:
    """The pairs of results that lie in the same memory."""
    memory = [t.untyped_storage().data_ptr() for t in results]
    return {(i, k) for i, a in enumerate(memory) for k, b in enumerate(memory[:i]) if a == b}
