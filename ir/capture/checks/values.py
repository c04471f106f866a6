"""Other values of the kind of an example's: for calls that an example stands for."""

from __future__ import annotations

import torch


def other_values(tensor: torch.Tensor) -> torch.Tensor:
    """Random values between the least and the largest of a tensor, of its dtype; normal numbers where all are equal."""
    if tensor.is_complex():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    if not tensor.numel():
        return tensor.clone()
    values = tensor.double() if tensor.is_floating_point() else tensor.long()
    values = values[torch.isfinite(values)]
    if not values.numel():
        return tensor.clone()
    low, high = values.min().item(), values.max().item()
    if not tensor.is_floating_point():
        return torch.randint(int(low), int(high) + 1, tensor.shape).to(tensor.dtype)
    if low == high:
        return torch.randn(tensor.shape, dtype=torch.float32).to(tensor.dtype)
    return (torch.rand(tensor.shape, dtype=torch.float64) * (high - low) + low).to(tensor.dtype)
