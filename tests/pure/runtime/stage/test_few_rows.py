"""Linear layers of few rows by a kernel: which take it, what it returns on a GPU, and which steps are compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from runtime.stage.linear import few_rows
from runtime.stage.linear.few_rows import (
    FEW_ROWS,
    FewRowsLinear,
    linear_of_few_rows,
    parts_of_few_rows,
    takes,
    use_few_rows,
    uses_few_rows,
)
from runtime.stage.speed import CompiledSteps
from runtime.stage.stage import shape_key

PARTS = 2


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The rows of each product that the kernel would compute, of whose place torch takes two parts of the columns."""
    rows: list[int] = []

    def in_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows.append(len(x))
        parts = zip(x.float().chunk(PARTS, 1), weight.float().chunk(PARTS, 1), strict=True)
        return torch.stack([a @ b.T for a, b in parts])

    monkeypatch.setattr(few_rows, "takes", lambda weight: weight.shape[0] > 4)
    kernel = FEW_ROWS.register_kernel("cpu")
    kernel(in_torch)
    yield rows
    kernel(few_rows._few_rows)


@torch.no_grad()
def test_layers_whose_weights_the_kernel_takes_multiply_few_rows_by_it(multiplied: list[int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4, bias=False)).bfloat16()
    inputs = [torch.randn(*shape, 8, dtype=torch.bfloat16) for shape in ((1, 1), (3, 5), (64,), (65,), (0,))]
    wanted = [model(x) for x in inputs]
    assert not uses_few_rows(model)
    use_few_rows([model])
    assert [type(layer) for layer in model] == [FewRowsLinear, nn.ReLU, nn.Linear]
    assert uses_few_rows(model)
    for x, y in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(model(x), y)
    assert multiplied == [1, 15, 64]


def test_a_cpu_has_no_kernel_for_few_rows() -> None:
    assert not takes(torch.zeros(128, 64, dtype=torch.bfloat16))


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 2, 17, 33, 64])
@pytest.mark.parametrize(
    ("height", "width"), [(128, 128), (4096, 4096), (28672, 4096), (4096, 14336), (1024, 11008), (32000, 256)]
)
def test_the_kernel_multiplies_as_the_library_does(rows: int, height: int, width: int) -> None:
    draw = torch.Generator("cuda").manual_seed(0)

    def made(*shape: int) -> Any:
        return torch.randn(*shape, generator=draw, device="cuda").bfloat16()

    x, weight, bias = made(rows, width), made(height, width), made(height)
    if not takes(weight):
        pytest.skip("a GPU without the kernel")
    for added in (None, bias):
        wanted = F.linear(x.float(), weight.float(), None if added is None else added.float())
        torch.testing.assert_close(linear_of_few_rows(x, weight, added).float(), wanted, atol=1, rtol=1e-2)


def test_steps_of_one_new_token_are_compiled_and_prompts_run_as_they_are() -> None:
    class Compiled:
        def is_prepared(self, key: object) -> bool:
            return False

        def __call__(self, *tensors: torch.Tensor, **sizes: int) -> str:
            return "compiled"

    compiled: Any = Compiled()
    steps = CompiledSteps(lambda *tensors, **sizes: "as it is", compiled, (1, 1))
    for seq, how in ((1, "compiled"), (7, "as it is")):
        given = torch.zeros(3), torch.zeros(3, seq)
        assert steps(*given, pages=2) == how
        assert steps.is_prepared(shape_key(given, {"pages": 2})) == (how == "as it is")
    assert CompiledSteps(len, compiled, None)(torch.zeros(3, 9)) == "compiled"


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 65])
def test_parts_of_a_product_are_contiguous_and_those_of_the_whole(multiplied: list[int], rows: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=torch.bfloat16) for shape in ((rows, 1, 8), (12, 8), (12,)))
    parts = parts_of_few_rows(x, weight, bias, [6, 4, 2])
    assert all(part.is_contiguous() for part in parts)
    torch.testing.assert_close(torch.cat([*parts], -1), F.linear(x, weight, bias))
    assert multiplied == ([] if rows > 64 else [rows])


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [1, 4, 33])
@pytest.mark.parametrize("sizes", [(4096,), (512, 128, 128), (14336, 14336), (128, 128, 128, 128)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_kernel_lays_out_the_parts_of_a_product(rows: int, sizes: tuple[int, ...], has_bias: bool) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=draw, device="cuda").bfloat16()
        for shape in ((rows, 1, 4096), (sum(sizes), 4096), (sum(sizes),))
    )
    if not takes(weight):
        pytest.skip("a GPU without the kernel")
    parts = parts_of_few_rows(x, weight, bias if has_bias else None, sizes)
    assert all(part.is_contiguous() for part in parts)
    wanted = F.linear(x.float(), weight.float(), bias.float() if has_bias else None)
    torch.testing.assert_close(torch.cat([*parts], -1).float(), wanted, atol=1, rtol=1e-2)
