"""What is tried of a kind of checkpoint, and the small models whose weights are saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

X = torch.linspace(-1, 1, 32).view(4, 8)
IDS = torch.arange(14).view(2, 7) + 3


def called(pipe: Any, call: Mapping[str, Any]) -> Any:
    return pipe(**call)


@dataclass(frozen=True)
class Tried:
    """A source with options, a call of it, and what the call must return; None where it is to be refused."""

    source: Any
    call: Mapping[str, Any]
    expected: torch.Tensor | None
    options: Mapping[str, Any] = field(default_factory=dict)
    run: Callable[[Any, Mapping[str, Any]], Any] = called  # of a running pipeline, and the call


Kind = Callable[[Path], Tried]


@cache
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()


def first_tensor(out: Any) -> torch.Tensor:
    """The logits of an output, or else its first tensor."""
    held = out.to_tuple() if hasattr(out, "to_tuple") else out
    return out.logits if hasattr(out, "logits") else next(t for t in tree_leaves(held) if isinstance(t, torch.Tensor))
