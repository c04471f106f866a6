"""The kernel for attention over pages beside plain torch: `TRITON_INTERPRET=1 pytest FILE`, where there is Triton."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from ir.paged import attention
from ir.paged.attention import arrivals_at, attention_by_kernel, attention_in_torch, shared_parts

HEADS, KV_HEADS, DIM, PAGE = 4, 2, 32, 16
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a window and a cap": {"window": 70, "cap": 5.0},
    "sinks": {"sinks": torch.linspace(-1, 2, HEADS)},
    "slopes": {"slopes": torch.linspace(0.1, 0.9, HEADS)},
}


def call(seq: int) -> tuple[Any, ...]:
    """The arguments of attention of texts with 5, 70 and 260 tokens before the new ones."""
    ends, pages = torch.tensor([5, 70, 260]), 22  # five parts of 64 keys
    pool = [torch.randn(3 * pages + 1, PAGE, KV_HEADS, DIM) for _ in range(2)]
    table = torch.randperm(3 * pages).view(3, pages) + 1
    last = ends[:, None] + torch.arange(seq)
    return torch.randn(3, seq, HEADS, DIM).transpose(1, 2), *pool, table, last, DIM**-0.5


@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="kernels are not interpreted")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of rows that are not there
@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_parts_of_the_keys_are_joined(monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any], joins: bool) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(attention, "starts_early", lambda: False)
    monkeypatch.setattr(attention, "JOINS", joins)
    monkeypatch.setattr(attention, "_arrivals", {})
    options = {"window": 0, "cap": 0.0, "slopes": None, "sinks": None, **kind}
    calls = [call(seq) for seq in (1, 3)]
    for given in (*calls, *calls):  # the counts of programs that have ended begin anew
        torch.testing.assert_close(attention_by_kernel(*given, **options), attention_in_torch(*given, **options))
    assert len(attention._arrivals) == 2 * joins
    assert not any(count.any() for count in attention._arrivals.values())


def test_programs_that_share_keys_run_at_once() -> None:
    assert [shared_parts(8 * texts, 64) for texts in (1, 4, 16, 32, 64, 128)] == [32, 20, 5, 2, 1, 1]
    assert shared_parts(8, 3) == 3


def test_each_pool_counts_its_own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_arrivals", {})
    ours, other = torch.zeros(2, 4), torch.zeros(2, 4)
    assert arrivals_at(ours) is arrivals_at(ours.view(2, 2, 2)) is not arrivals_at(other)
