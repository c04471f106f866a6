"""Models that are one expression, and their graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import nn

from ir.capture import capture
from ir.graph import Call, Graph
from ir.text.printer import op_name
from tests.support.models.model_cases import X
from tests.support.models.written import hidden

batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))


class Function(nn.Module):
    """A model that is one expression."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: torch.Tensor) -> Any:
        return self.compute(x)


def function(compute: Callable[[torch.Tensor], Any], x: torch.Tensor | None = None, dynamic: Any = X) -> Graph:
    return capture(Function(compute), (hidden() if x is None else x,), dynamic_shapes=dynamic)


def operators(graph: Graph) -> list[str]:
    return [op_name(node).removeprefix("aten.") for node in graph.nodes if isinstance(node, Call)]
