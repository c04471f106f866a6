"""Weights of layers whose inputs are scaled by channel first, as AWQ and SmoothQuant leave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ir.checkpoint.quantized.scheme import Parts, PartShapes, RowAxis, Scheme


@dataclass(frozen=True)
class Smoothed:
    """The weight of `inner`, each column times the factor `pre_scale` [columns] of the layer's inputs."""

    inner: Scheme

    dims: ClassVar[int] = 2

    def dequantize(self, parts: Parts) -> torch.Tensor:
        weight = self.inner.dequantize({name: part for name, part in parts.items() if name != "pre_scale"})
        return weight.to(torch.float32) * parts["pre_scale"].reshape(-1).to(torch.float32)

    def rows(self, shapes: PartShapes) -> Mapping[str, RowAxis]:
        return self.inner.rows({name: shape for name, shape in shapes.items() if name != "pre_scale"})

    def __str__(self) -> str:
        return f"{self.inner}, inputs scaled by channel"
