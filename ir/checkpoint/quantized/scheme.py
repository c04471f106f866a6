"""Quantization schemes: a formula from stored tensors to a weight, and the place of the weight's rows in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch

Parts: TypeAlias = Mapping[str, torch.Tensor]
"""The stored tensors of one weight by what they are: codes, scale, zeros, …"""

PartShapes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RowAxis:
    """The dimension of a stored tensor along which the weight's rows lie, and how many rows an index of it holds."""

    dim: int
    rows: int = 1


class Scheme(Protocol):
    """A frozen dataclass, equal where the formula is; `str` names it in notes."""

    dims: ClassVar[int]
    """The dimensions of the codes of one weight; those of experts have one more, before them."""

    def dequantize(self, parts: Parts) -> torch.Tensor:
        """The weight as its library computes it, in the dtype of that.  Plain operators: it can be exported."""
        ...

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        """The axes of the stored tensors that hold some of the rows each; a tensor without one belongs to all rows.

        Empty where the weight can only be computed whole.
        """
        ...


@runtime_checkable
class HasOperator(Protocol):
    """A scheme whose formula is one operator of graphs: passes and stage files then see one node for a weight."""

    def in_graphs(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        """The weight that `dequantize` computes, in `dtype`."""
        ...
