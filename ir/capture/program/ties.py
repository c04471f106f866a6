"""Names of tied tensors: those that are one in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def tied_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """All names of the tensor that has a name, by each of them."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    by_memory: dict[Any, list[str]] = {}
    for fqn, t in tensors:
        by_memory.setdefault(memory_key(t), []).append(fqn)
    return {fqn: tuple(fqns) for fqns in by_memory.values() for fqn in fqns}


def memory_key(t: torch.Tensor) -> tuple[Any, ...]:
    """A key that is equal for two names of one tensor; storage addresses would not do for empty or meta tensors."""
    return (t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), t.stride(), t.dtype)
