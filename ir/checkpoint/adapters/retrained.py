"""A tensor that is computed from the base's and from those that an adapter has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ir.checkpoint.tensors import LikeBase, Tensorlike

AdapterParts: TypeAlias = Mapping[str, Tensor]
"""The tensors that an adapter has for a layer, by the names of their parts."""

WeightFormula: TypeAlias = Callable[..., Tensor]
"""The new tensor, from the old one and those that the adapter has for it."""


class NoFit(ValueError):
    """A tensor of an adapter that does not fit the weight."""


@dataclass(frozen=True, eq=False)
class Retrained(LikeBase[Tensorlike]):
    """A tensor as an adapter changes it, which needs the whole of it."""

    base: Tensorlike
    parts: Mapping[str, Tensorlike]
    formula: WeightFormula

    def read(self, dtype: torch.dtype) -> Tensor:
        parts = {name: widened(part, dtype) for name, part in self.parts.items()}
        return self.formula(self.base.read(dtype), parts).to(dtype).contiguous()

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        yield self.read(dtype).flatten()

    def shape_made(self) -> tuple[int, ...]:
        """The shape that the formula gives.  Raises what torch raises where the tensors do not fit, and KeyError."""
        parts = {name: torch.empty(part.shape, device="meta") for name, part in self.parts.items()}
        return tuple(self.formula(torch.empty(self.base.shape, device="meta"), parts).shape)


def widened(part: Tensorlike, dtype: torch.dtype) -> Tensor:
    """A tensor of an adapter, if of floats in the dtype that peft computes with for a weight of `dtype`."""
    if not part.dtype.is_floating_point:
        return part.read(part.dtype)
    return part.read(torch.float64 if dtype is torch.float64 else torch.float32)


def increased(weight: Tensor, added: Tensor) -> Tensor:
    """A weight with what is added to it, whose dimensions but the first may be one.

    Raises NoFit where it has another number of rows, so that none is repeated to fit.
    """
    if added.shape[:1] != weight.shape[:1]:
        raise NoFit(f"{list(added.shape)} is added to {list(weight.shape)}")
    return weight + added.reshape(weight.shape)
