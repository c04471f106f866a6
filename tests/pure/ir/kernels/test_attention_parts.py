"""The parts into which keys are split for attention over pages, and what its kernels are started with."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ir.paged import attention
from ir.paged.attention import PROGRAMS, joining_warps, paged_attention, shared_parts

HEADS = 8


def test_programs_that_share_keys_run_at_once() -> None:
    parts = {texts: shared_parts(HEADS * texts, 64) for texts in (1, 2, 4, 8, 16, 32, 64, 128)}
    assert parts == {1: 32, 2: 32, 4: 16, 8: 8, 16: 4, 32: 2, 64: 1, 128: 1}
    assert all(HEADS * texts * of_text <= PROGRAMS for texts, of_text in parts.items() if of_text > 1)


def test_each_part_has_a_block_of_keys() -> None:
    assert [shared_parts(HEADS, blocks) for blocks in (0, 1, 3, 4, 100)] == [1, 1, 2, 4, 32]


def test_a_thread_joins_few_numbers() -> None:
    warps = {
        (splits, width): joining_warps(splits, width) for splits, width in ((32, 128), (32, 80), (16, 64), (2, 64))
    }
    assert warps == {(32, 128): 8, (32, 80): 4, (16, 64): 2, (2, 64): 1}
    assert joining_warps(32, 512) == 8


@pytest.mark.parametrize("texts", [1, 3])
def test_kernels_of_several_texts_start_the_next_one_first(monkeypatch: pytest.MonkeyPatch, texts: int) -> None:
    started: list[dict[str, Any]] = []

    class Kernel:
        def __init__(self, kernel: Any) -> None:
            self._names = [*inspect.signature(getattr(kernel, "fn", kernel)).parameters]

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return lambda *given, **options: started.append({**dict(zip(self._names, given, strict=True)), **options})

    for name in ("attend_pages", "join_splits"):
        monkeypatch.setattr(attention, name, Kernel(getattr(attention, name)))
    sizes = {"next_power_of_2": lambda size: 1 << (size - 1).bit_length(), "cdiv": lambda a, b: -(-a // b)}
    monkeypatch.setattr(attention, "triton", SimpleNamespace(**sizes))
    monkeypatch.setattr(attention, "starts_early", lambda: True)
    made = torch.empty(1, device="meta")
    query, pools = made.new_empty(texts, 8, 1, 64), [made.new_empty(99, 16, 2, 64) for _ in range(2)]
    table, last = made.new_empty(texts, 32), made.new_empty(texts, 1)
    assert paged_attention(query, pools[0], pools[1], table, last, 1.0).shape == query.shape
    assert [(one["EARLY"], one["SEVERAL"], one["launch_pdl"]) for one in started] == [(True, texts > 1, True)] * 2
