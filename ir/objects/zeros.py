"""Zeros that take no memory until they are written to: the pools of a large decoder while it is captured."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import torch

_LEAST = 1 << 18  # bytes of a tensor for which a mapping of its own is worth it
_WORD = ctypes.sizeof(ctypes.c_int64)

_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t


def zeros(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of zeros on the CPU.  The system gives it pages of memory as they are written to."""
    nbytes = torch.Size(shape).numel() * dtype.itemsize
    if nbytes < _LEAST:
        return torch.zeros(*shape, dtype=dtype)
    return torch.frombuffer(mmap(-1, nbytes, flags=MAP_PRIVATE | MAP_ANONYMOUS), dtype=dtype).view(*shape)


def is_large_zeros(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of zeros, and so large that `zeros` makes one like it without memory."""
    if type(tensor) is not torch.Tensor or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return False
    if tensor.requires_grad or tensor.is_neg() or tensor.is_conj():
        return False
    if tensor.nbytes < _LEAST or tensor.nbytes % _WORD or not tensor.is_contiguous() or tensor.storage_offset():
        return False
    return _is_zero(tensor.data_ptr(), tensor.nbytes)


def _is_zero(start: int, nbytes: int) -> bool:
    """Whether memory is of zeros: its first word is, and each word is as the one before.

    torch's own reductions take ten times as long, more where threads wait for a core.
    """
    return not ctypes.c_int64.from_address(start).value and not _compare(start, start + _WORD, nbytes - _WORD)


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor's values in memory of its own, of which large zeros take none."""
    return zeros(tensor.shape, tensor.dtype) if is_large_zeros(tensor) else tensor.detach().clone()
