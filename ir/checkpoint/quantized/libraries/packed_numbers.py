"""Numbers that are packed into words: their bits, and the groups of their columns."""

from __future__ import annotations

import torch

from ir.checkpoint.quantized.groups import Sources


def groups_of_columns(parts: Sources, count: int) -> torch.Tensor:
    """The group of each column.  Raises ValueError for one beyond the `count` that have scales."""
    group = parts["g_idx"].read(torch.int64)
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < count:
        raise ValueError(f"g_idx names group {int(group.max())} of {count}")
    return group


def bits_that_fit(words: int, count: int, first: int = 4) -> int:
    """The bits of a number, of which so many are packed into words of 32, the last one filled up; 0 for more than 8.

    `first` is taken where several fit.
    """
    return next((bits for bits in (first, 4, 8, 2, 3, 5, 6, 7) if -(-count * bits // 32) == words), 0)
