"""Tensors of torch <-> arrays, which are what the front and the engines exchange."""

from __future__ import annotations

import ctypes

import torch

from runtime.serving.arrays import Array


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor over the bytes of an array; over a copy of them if they may not be written."""
    dtype = getattr(torch, array.dtype)
    if not array.data:
        return torch.empty(array.shape, dtype=dtype)
    data = bytearray(array.data) if memoryview(array.data).readonly else array.data
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).view(array.shape)


def array_of(tensor: torch.Tensor) -> Array:
    """A copy of a tensor."""
    dense = tensor.detach().cpu().contiguous()
    data = ctypes.string_at(dense.data_ptr(), dense.nbytes) if dense.nbytes else b""
    return Array(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)
