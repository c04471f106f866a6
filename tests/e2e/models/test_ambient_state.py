"""torch's settings in the process that runs stages: those that change results are stated in the stages, or told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ir.capture import capture
from ir.errors import CaptureError
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.device.settings import torch_settings
from tests.support.models.hard_models import Branching


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


@contextmanager
def matmul_precision(value: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(value)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


OTHER = {
    "torch.set_float32_matmul_precision is high here and was highest": lambda: matmul_precision("high"),
    "torch.backends.cudnn.benchmark is True here and was False": lambda: torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=False, allow_tf32=True
    ),
    "torch.set_default_dtype is torch.float64 here and was torch.float32": lambda: default_dtype(torch.float64),
}


def test_other_settings_than_at_the_compilation_are_warned_of(tmp_path: Path) -> None:
    compile_model(nn.Sequential(nn.Linear(8, 8), Branching()).eval(), (torch.randn(2, 8),), out=tmp_path, stages=1)
    for message, setting in OTHER.items():
        with setting(), pytest.warns(UserWarning, match=message):
            Pipeline.load(tmp_path).close()


def test_settings_by_torchs_later_names_are_those_by_its_earlier_ones(tmp_path: Path) -> None:
    """After these torch refuses to say what the precision is by the earlier name."""
    products: Any = torch.backends.cuda.matmul
    before, model, x = products.fp32_precision, nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), torch.randn(2, 8)
    assert torch_settings()["torch.set_float32_matmul_precision"] == "highest"
    products.fp32_precision = "tf32"
    try:
        assert torch_settings()["torch.set_float32_matmul_precision"] == "high"
        compile_model(model, (x,), out=tmp_path, stages=1)
        with Pipeline.load(tmp_path) as pipe:
            found: Any = pipe(x)
            assert torch.equal(found, model(x))
    finally:
        products.fp32_precision = before
    assert torch_settings()["torch.set_float32_matmul_precision"] == "highest"


def test_the_default_dtype_does_not_matter_where_no_module_is_kept() -> None:
    assert "torch.set_default_dtype" in torch_settings(keeps_modules=True)
    assert "torch.set_default_dtype" not in torch_settings(keeps_modules=False)


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_model_is_compiled_as_it_computes_in_the_callers_mode(mode: Callable[[], Any], tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 8)).eval(), torch.randn(4, 8)
    with mode():
        compile_model(model, (torch.randn(4, 8),), out=tmp_path, stages=2)
        expected = model(x)
    with Pipeline.load(tmp_path) as pipe:
        found = pipe(x)
        with torch.inference_mode():
            assert torch.equal(pipe(x.clone()), found)
    assert found.dtype is expected.dtype
    assert torch.equal(found, expected)


def test_autocast_around_a_call_is_warned_of(tmp_path: Path) -> None:
    compile_model(nn.Linear(4, 4).eval(), (torch.randn(2, 4),), out=tmp_path, stages=1)
    said = pytest.warns(UserWarning, match="autocast is on, which stages do not follow")
    with Pipeline.load(tmp_path) as pipe, torch.autocast("cpu", torch.bfloat16), said as caught:
        assert pipe(torch.randn(2, 4)).dtype is torch.float32
    assert caught[0].filename == __file__


def test_a_module_under_autocast_is_not_kept_whole() -> None:
    model = nn.Sequential(nn.Linear(8, 8), Branching())
    refused = "1 cannot be kept whole: it is called under autocast, which stages run without"
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(CaptureError, match=refused):
        capture(model.eval(), (torch.randn(2, 8),))


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        last: Any = self.layers[1]
        return self.layers[0](x) @ last.weight.t()


def test_stages_keep_to_the_number_of_threads(tmp_path: Path) -> None:
    """A matrix product of MKL's on several threads rounds otherwise."""
    torch.manual_seed(0)
    model, x = Wide().eval(), torch.randn(1, 7, 32)
    compile_model(model, (x,), out=tmp_path / "out", stages=2)
    with Pipeline.load(tmp_path / "out", devices=["cpu", "cpu"]) as pipe, torch.no_grad():
        assert torch.get_num_threads() == 1
        assert torch.equal(pipe(x), model(x))
