"""The parts into which keys are split for attention over pages."""

from __future__ import annotations

from ir.paged.attention import PROGRAMS, joining_warps, shared_parts

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
