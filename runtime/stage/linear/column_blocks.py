"""Linear layers of many columns on a CPU, a block of columns at a time, with the bits of torch's own.

A library that computes all columns at once goes over them again for each part of the sums, and they fit no cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.device.kinds import kind_of

_BLOCK = 512  # columns
_LEAST = 4096  # columns of a layer, below which blocks gain little
_GAIN = 0.95  # of the time, at most, that blocks must take to be used
_ALIGNMENT = 64  # bytes; libraries may add numbers up in another order where memory is not aligned to them
_WATCHED = 1024  # kinds of products that are remembered

ProductKind: TypeAlias = tuple[int, torch.Size, bool, int]
"""The rows, the shape of the weight, whether there is no bias, and the threads."""


class BlockedLinear(nn.Linear):
    """A linear layer that multiplies by blocks of its columns where that is faster and returns the same."""

    def forward(self, input: Tensor) -> Tensor:
        return linear_in_blocks(input, self.weight, self.bias)


def use_blocks(modules: Iterable[nn.Module]) -> None:
    """Have the linear layers in the modules of a stage multiply by blocks, in place, where these may be faster."""
    for layer in (layer for module in modules for layer in module.modules()):
        if type(layer) is nn.Linear and _may_gain(layer.weight):
            layer.__class__ = BlockedLinear


def linear_in_blocks(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(x, weight, bias)`, by blocks of columns where these were found to be faster and to return the same.

    Once a product of so many rows comes again, it is computed both ways, and both are timed.
    """
    if not _is_plain(x, weight) or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    kind = x.numel() // x.shape[-1], weight.shape, bias is None, torch.get_num_threads()
    if CHOICES.pays(kind):
        return _by_blocks(x, weight, bias)
    if CHOICES.is_open(kind) and _are_numbers(x, 0.25):
        return CHOICES.compare(kind, x, weight, bias)
    return F.linear(x, weight, bias)


class Choices:
    """For which products blocks of columns are faster, and return the same."""

    def __init__(self) -> None:
        self._seen: set[ProductKind] = set()
        self._pays: dict[ProductKind, bool] = {}

    def pays(self, kind: ProductKind) -> bool:
        """Whether blocks are known to be faster, and to return the same."""
        return self._pays.get(kind, False)

    def is_open(self, kind: ProductKind) -> bool:
        """Whether a kind of product has come before, and nothing is known of it."""
        if kind in self._pays:
            return False
        if kind in self._seen:
            return True
        if len(self._seen) >= _WATCHED:  # of rows that never come again, most likely
            self._seen.clear()
            self._pays.clear()
        self._seen.add(kind)
        return False

    def compare(self, kind: ProductKind, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The product, computed both ways: by blocks first, so that a cache serves the other way at least as well."""
        started = perf_counter()
        blocks = _by_blocks(x, weight, bias)
        between = perf_counter()
        whole = F.linear(x, weight, bias)
        took = perf_counter() - between
        is_faster = between - started < _GAIN * took
        self._pays[kind] = is_faster and torch.equal(blocks, whole) and _are_numbers(weight, 0.9)
        return whole


CHOICES = Choices()


def _may_gain(weight: Tensor) -> bool:
    is_large = len(weight) >= _LEAST and weight.dtype == torch.float32
    return is_large and kind_of(weight.device).blocks_linear and weight.is_contiguous()


def _is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one of two matrices, as they lie in memory, of more than one row."""
    if type(x) is not Tensor or x.dim() < 2 or not x.is_contiguous() or x.numel() <= x.shape[-1]:
        return False
    aligned = x.data_ptr() % _ALIGNMENT == 0 and weight.data_ptr() % _ALIGNMENT == 0
    return aligned and x.dtype == weight.dtype and _may_gain(weight) and not torch.is_autocast_enabled("cpu")


def _are_numbers(tensor: Tensor, share: float) -> bool:
    """Whether most are not zero, as in a rehearsal: of zeros, two orders of adding up return the same."""
    return int(tensor.count_nonzero()) > share * tensor.numel()


def _by_blocks(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made = x.new_empty(*x.shape[:-1], len(weight))
    rows, blocks = x.view(-1, x.shape[-1]), made.view(-1, len(weight)).split(_BLOCK, 1)
    if bias is None:
        for block, part in zip(blocks, weight.split(_BLOCK), strict=True):
            torch.mm(rows, part.t(), out=block)
    else:
        for block, part, added in zip(blocks, weight.split(_BLOCK), bias.split(_BLOCK), strict=True):
            torch.addmm(added, rows, part.t(), out=block)
    return made
