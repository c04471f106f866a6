"""A weight with the product of two small matrices added to it, read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch

from ir.checkpoint.adapters.retrained import widened
from ir.checkpoint.tensors import LikeBase, Tensorlike


@dataclass(frozen=True, eq=False)
class Adapted(LikeBase[Tensorlike]):
    """A weight with the product of two small matrices added to it, as peft merges them.

    The product of `up` [rows, rank] and `down` [rank, columns] is multiplied with `scale`; further dimensions, those
    of a convolution, count as columns.  `transposed`: whether the weight is [columns, rows].  `rounded`: whether the
    product is rounded to the dtype of the weight before it is added, as that of an embedding.
    """

    base: Tensorlike
    up: Tensorlike
    down: Tensorlike
    scale: float
    transposed: bool = False
    rounded: bool = False

    @property
    def product_shape(self) -> tuple[int, ...]:
        rows, columns = self.up.shape[0], self.down.shape[1:]
        return (*columns, rows) if self.transposed else (rows, *columns)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        up, down = _factor(self.up, dtype), _factor(self.down, dtype)
        return (self.base.read(dtype) + self._rows(up, down, 0, self.shape[0], dtype).view(self.shape)).to(dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order, with those rows of the product in memory that a block of the weight has a part of."""
        up, down = _factor(self.up, dtype), _factor(self.down, dtype)
        return _sums(self.base, dtype, lambda first, last: self._rows(up, down, first, last, dtype))

    def _rows(self, up: torch.Tensor, down: torch.Tensor, first: int, last: int, dtype: torch.dtype) -> torch.Tensor:
        product = (up @ down[:, first:last]).t() if self.transposed else up[first:last] @ down
        return (product * self.scale).to(dtype) if self.rounded else product * self.scale


@dataclass(frozen=True, eq=False)
class AdaptedExperts(LikeBase[Tensorlike]):
    """The weights of experts in one tensor, each with a product of its own added to it, as peft merges them.

    `base` is [experts, rows, columns], or [experts, columns, rows] where `transposed`; `up` [rows, rank * experts]
    has an expert's columns `experts` apart, and `down` [experts * rank, columns] its rows together.
    """

    base: Tensorlike
    up: Tensorlike
    down: Tensorlike
    scale: float
    transposed: bool = False

    @property
    def product_shape(self) -> tuple[int, ...]:
        rows, columns = self.up.shape[0], self.down.shape[1]
        return (self.shape[0], columns, rows) if self.transposed else (self.shape[0], rows, columns)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.cat([*self.blocks(dtype)]).view(self.shape)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order, with the products of those experts in memory that a block has a part of."""
        up, down = _factor(self.up, dtype), _factor(self.down, dtype)

        def products(first: int, last: int) -> torch.Tensor:
            return torch.stack([self._product(up, down, expert) for expert in range(first, last)]).to(dtype)

        return _sums(self.base, dtype, products)

    def _product(self, up: torch.Tensor, down: torch.Tensor, expert: int) -> torch.Tensor:
        experts = self.shape[0]
        rank = down.shape[0] // experts
        product = up[:, expert::experts] @ down[expert * rank : (expert + 1) * rank] * self.scale
        return product.t() if self.transposed else product


def _sums(base: Tensorlike, dtype: torch.dtype, added: Callable[[int, int], torch.Tensor]) -> Iterator[torch.Tensor]:
    """The blocks of a tensor with what is added to it.

    `added(first, last)` is that of entries of its first dimension, those that a block has a part of.
    """
    size, done = max(1, prod(base.shape[1:])), 0
    for block in base.blocks(dtype):
        first, last = done // size, -(-(done + block.numel()) // size)
        start = done - first * size
        yield (block + added(first, last).flatten()[start : start + block.numel()]).to(dtype)
        done += block.numel()


def _factor(tensor: Tensorlike, dtype: torch.dtype) -> torch.Tensor:
    return widened(tensor, dtype).flatten(1)
