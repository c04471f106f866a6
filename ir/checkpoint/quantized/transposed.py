"""Weights of transformers' Conv1D, which lie across those of the linear layers that libraries put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ir.checkpoint.quantized.scheme import Parts, PartShapes, RowAxis, Scheme


@dataclass(frozen=True)
class Transposed:
    """The weight of `inner` with rows and columns exchanged."""

    inner: Scheme

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        return self.inner.dequantize(parts).t()

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return {}  # the weight's rows are columns of what is stored

    def __str__(self) -> str:
        return str(self.inner)


def lies_across(layer: nn.Module) -> bool:
    """Whether a layer is a linear one whose weight is [columns, rows]: transformers' Conv1D."""
    return type(layer).__name__ == "Conv1D"
