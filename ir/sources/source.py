"""What every kind of source becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ir.capture.dynamic import DynamicShapes


@dataclass(frozen=True)
class Source:
    """A model as its user brings it."""

    name: str
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_shapes: DynamicShapes
    weights: Mapping[str, torch.Tensor]  # by fully qualified name
    notes: tuple[str, ...] = ()  # what was switched, fixed or left out to make it compile


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile returns."""
    return getattr(model, "_orig_mod", model)
