"""What every kind of source becomes, and how it may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ir.capture.sizes.dynamic import DynamicShapes


@dataclass(frozen=True)
class Reading:
    """What a user says about how a source is read."""

    dtype: torch.dtype | None = None  # of the floating-point weights; None: as the source has them
    trust_remote_code: bool = False  # whether Python files inside a checkpoint folder may run
    weights: bool = True  # whether their values are wanted
    padding: bool = True  # whether texts of a batch may be padded, so that a checkpoint's model is called with a mask


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
    soft: bool = False  # whether a dynamic size that the model fixes may stay fixed: where nobody asked for it


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside what torch.compile returns."""
    return getattr(model, "_orig_mod", model)
