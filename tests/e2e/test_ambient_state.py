"""torch's settings in the process that runs stages: those that change results are stated in the stages, or told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from passes.compilation.api import compile_model
from runtime import Pipeline


class Defaults(nn.Module):
    """Its results have torch's default dtype in every way that an operator takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.offset = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Any:
        for layer in self.layers:
            x = torch.tanh(layer(x)) + self.offset
        n = torch.arange(x.shape[0])
        made = torch.zeros(x.shape[0]), torch.full((3,), 0.1), torch.arange(0.0, 3.0), torch.linspace(0, 1, 5)
        computed = n / 3, n / (n + 1), n * 0.1, n**0.5, torch.sqrt(n), torch.fft.fft(n), torch.where(n > 1, 0.1, 0.2)
        return x, *made, *computed, torch.where(n > 1, n, 0.1)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(("then", "now"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
@pytest.mark.parametrize("link", [False, True])
def test_stages_keep_the_default_dtype_that_the_model_had(
    then: torch.dtype, now: torch.dtype, link: bool, tmp_path: Path
) -> None:
    with default_dtype(then):
        model, x = Defaults().eval(), torch.randn(4, 8)
        torch.save(model.state_dict(), tmp_path / "w.bin")
        how: dict[str, Any] = {"checkpoint": tmp_path / "w.bin", "weights": "link"} if link else {}
        compile_model(model, (x,), out=tmp_path / "out", stages=2, dynamic_shapes={"x": {0: "batch"}}, **how)
        expected = [t.detach() for t in model(x)]
    with default_dtype(now), Pipeline.load(tmp_path / "out") as pipe:
        found = pipe(x)
    torch.testing.assert_close(list(found), expected, rtol=0, atol=0)


def test_other_settings_than_at_the_compilation_are_warned_of(tmp_path: Path) -> None:
    compile_model(nn.Linear(4, 4).eval(), (torch.randn(2, 4),), out=tmp_path, stages=1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.warns(UserWarning, match="torch.set_float32_matmul_precision is high here and was highest"):
            Pipeline.load(tmp_path).close()
    finally:
        torch.set_float32_matmul_precision(before)
