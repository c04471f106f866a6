"""Inputs that lie in memory otherwise than the example did: stages return what the model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from passes.compilation.api import compile_model
from runtime import Pipeline

SHAPE = (4, 2, 6, 8)


class Model(nn.Module):
    """Reads its input as a contiguous one in the ways that export takes for granted if the example was one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Any:
        y = x.contiguous()
        viewed = self.first(y.view(-1, 8))
        diagonal = torch.as_strided(y, (y.shape[0], 4), (y.stride(0), 9))
        attended = F.scaled_dot_product_attention(y, y, y)
        return self.last(torch.tanh(viewed)), diagonal * 2, attended


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "with holes": lambda x: torch.stack([x, x], -1)[..., 0],
    "reversed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "expanded": lambda x: x[:1].expand(SHAPE),
}


def test_any_layout_gives_what_the_model_returns(tmp_path: Path) -> None:
    model = Model().eval()
    compile_model(model, (torch.randn(SHAPE),), out=tmp_path, stages=2, dynamic_shapes={"x": {0: "batch"}})
    with Pipeline.load(tmp_path) as pipe, torch.no_grad():
        for lay in LAYOUTS.values():
            x = lay(torch.randn(SHAPE))
            torch.testing.assert_close(pipe(x), model(x))


def test_parts_of_a_batch_have_the_layout_of_the_example(tmp_path: Path) -> None:
    """Where the batch is the second dimension, its parts have holes."""

    class BatchSecond(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.contiguous().view(4, x.shape[1], 48).tanh()

    compile_model(BatchSecond(), (torch.randn(SHAPE),), out=tmp_path, stages=1, dynamic_shapes={"x": {1: "batch"}})
    with Pipeline.load(tmp_path) as pipe:
        for lay in LAYOUTS.values():
            x = lay(torch.randn(SHAPE))
            torch.testing.assert_close(pipe(x, microbatches=2), x.reshape(4, 2, 48).tanh())


def test_an_example_in_another_layout_sets_the_one_that_stages_compute_in(tmp_path: Path) -> None:
    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).view(-1, 2).tanh()

    example = torch.randn(SHAPE).to(memory_format=torch.channels_last)
    compile_model(Strided(), (example,), out=tmp_path, stages=1)
    x = torch.randn(SHAPE)
    with Pipeline.load(tmp_path) as pipe:
        assert pipe.manifest.programs[0].layouts == ((0, 2, 3, 1),)
        torch.testing.assert_close(pipe(x), x.permute(0, 2, 3, 1).reshape(-1, 2).tanh())
