"""The kernel for attention over pages beside plain torch, on a GPU; and as an operator of a compiled function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ir.paged.attention import attention_in_torch, paged_attention

pytestmark = pytest.mark.gpu

KINDS: dict[str, dict[str, Any]] = {
    "grouped heads": {"heads": 32, "kv_heads": 8, "dim": 128},
    "a window and a cap": {"heads": 8, "kv_heads": 4, "dim": 256, "window": 64, "cap": 50.0},
    "sinks": {"heads": 16, "kv_heads": 8, "dim": 64, "sinks": True},
    "slopes": {"heads": 16, "kv_heads": 16, "dim": 80, "slopes": True},
    "latent heads": {"heads": 16, "kv_heads": 1, "dim": 576, "width": 512},
}


def call(seq: int, device: str, dtype: torch.dtype, heads: int, kv_heads: int, dim: int, **kind: Any) -> tuple:
    """The arguments of attention of three rows of different lengths, over pages of 16."""
    torch.manual_seed(0)
    ends, page, pages = torch.tensor([50, 700, 200]), 16, 44

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    last = (ends[:, None] - seq + 1 + torch.arange(seq)).clamp(min=0)
    pools = made(3 * pages + 1, page, kv_heads, dim), made(3 * pages + 1, page, kv_heads, kind.get("width", dim))
    table = torch.randperm(3 * pages).view(3, pages) + 1
    given = made(3, seq, heads, dim).transpose(1, 2), *pools, table.to(device), last.to(device), dim**-0.5
    by_head = (made(heads) if kind.get(name) else None for name in ("slopes", "sinks"))
    return *given, kind.get("window", 0), kind.get("cap", 0.0), *by_head


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seq", [1, 40])
def test_the_kernel_computes_what_torch_does(seq: int, kind: dict[str, Any]) -> None:
    exact = call(seq, "cuda", torch.float32, **kind)
    torch.testing.assert_close(paged_attention(*exact), attention_in_torch(*exact), atol=1e-4, rtol=1e-4)
    half = call(seq, "cuda", torch.bfloat16, **kind)
    torch.testing.assert_close(paged_attention(*half), attention_in_torch(*half), atol=5e-2, rtol=5e-2)


def test_a_compiled_function_takes_it_as_one_operator() -> None:
    given = call(1, "cuda", torch.float32, 4, 2, 16, window=64)
    compiled = torch.compile(paged_attention, fullgraph=True)
    torch.testing.assert_close(compiled(*given), paged_attention(*given))
