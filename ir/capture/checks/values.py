"""Other values of the kind of an example's: for calls that an example stands for."""

from __future__ import annotations

import torch


def other_values(tensor: torch.Tensor) -> torch.Tensor:
    """Random values between the least and the largest of a tensor, in its dtype and layout.

    Normal numbers where all are equal.
    """
    return torch.empty_like(tensor).copy_(_drawn(tensor))


def of_size(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """A tensor repeated, or cut, to a size along a dimension."""
    times = -(-size // tensor.shape[dim])
    return torch.cat([tensor] * times, dim).narrow(dim, 0, size).contiguous()  # all dtypes can be joined


def _drawn(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    values = tensor.double() if tensor.is_floating_point() else tensor.long()
    values = values[torch.isfinite(values)]
    if not values.numel():
        return tensor
    low, high = values.min().item(), values.max().item()
    if not tensor.is_floating_point():
        return torch.randint(int(low), int(high) + 1, tensor.shape)
    if low == high:
        return torch.randn(tensor.shape, dtype=torch.float32)
    return torch.rand(tensor.shape, dtype=torch.float64) * (high - low) + low
