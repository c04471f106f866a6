"""The kernel for one row beside plain torch: `TRITON_INTERPRET=1 pytest FILE`, where there is Triton."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.stage.linear.few_rows import takes
from runtime.stage.linear.one_row import ONE_ROW

WIDTH, HEIGHT, EPS = 2304, 8, 1e-3  # more than two steps of the kernel, and the last is no whole one


def in_torch(
    x: Tensor, weight: Tensor, norm: Tensor | None, more: float, eps: float, added: Tensor | None, gated: bool
) -> Tensor:
    """What the kernel computes."""
    if norm is not None:
        x = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + eps) * (norm.float() + more)
    made = (x.float() @ weight.float().T).to(weight.dtype)
    if gated:
        first, second = made.chunk(2, -1)
        return F.silu(first) * second
    return made if added is None else made + added


@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="kernels are not interpreted")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("behind", ["nothing", "added", "gated"])
def test_the_kernel_computes_what_is_before_and_behind_a_product(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, normed: bool, behind: str
) -> None:
    language = pytest.importorskip("triton.language")
    for name in ("gdc_wait", "gdc_launch_dependents"):  # of a GPU
        monkeypatch.setattr(language.extra.cuda, name, lambda: None)
    x, weight, norm, added = (
        torch.randn(*shape).to(dtype) for shape in ((1, WIDTH), (HEIGHT, WIDTH), (WIDTH,), (1, HEIGHT))
    )
    weight /= WIDTH**0.5
    given = x, weight, norm if normed else None, 1.0, EPS, added if behind == "added" else None, behind == "gated"
    torch.testing.assert_close(
        ONE_ROW(*given), in_torch(*given), atol=1e-3, rtol=2e-2 if dtype == torch.bfloat16 else 2e-3
    )


@pytest.mark.gpu
@pytest.mark.parametrize(("height", "width"), [(128, 128), (6144, 4096), (28672, 4096), (4096, 14336), (1024, 11008)])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("behind", ["nothing", "added", "gated"])
def test_on_a_gpu(height: int, width: int, normed: bool, behind: str) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    x, weight, norm, added = (
        torch.randn(*shape, generator=draw, device="cuda").bfloat16()
        for shape in ((1, width), (height, width), (width,), (1, height))
    )
    if not takes(weight):
        pytest.skip("a GPU without the kernel")
    weight /= width**0.5
    given = x, weight, norm if normed else None, 1.0, EPS, added if behind == "added" else None, behind == "gated"
    torch.testing.assert_close(ONE_ROW(*given), in_torch(*given), atol=2e-2, rtol=2e-2)
