"""The layout of a tensor in memory: dense, with its dimensions in an order."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """Dense memory.  `order`: the dimensions, the outermost first; (0, 2, 3, 1) is channels last."""

    order: tuple[int, ...]

    def bring(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor if it lies so, else a copy that does."""
        strides = self._strides(tensor.shape)
        found = zip(tensor.shape, tensor.stride(), strides, strict=True)
        if not tensor.numel() or all(have == want for size, have, want in found if size != 1):
            return tensor
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(
            tensor.detach()
        )

    def _strides(self, shape: torch.Size) -> tuple[int, ...]:
        strides, step = [1] * len(shape), 1
        for d in reversed(self.order):
            strides[d] = step
            step *= max(shape[d], 1)
        return tuple(strides)
