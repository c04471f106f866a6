"""A model whose forward changes something, and the check that stages keep it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from ir.capture import capture
from tests.support.checking import Call, run_graph, run_model

WIDTH = 4


def hidden(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, WIDTH)


class Changes(nn.Module):
    """A model whose forward is one function of itself and its input."""

    def __init__(self, compute: Callable[..., torch.Tensor], **attributes: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.table = nn.Embedding(8, WIDTH, max_norm=0.5)
        self.compute = compute
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(self, x)


def check_calls(model: nn.Module, *rows: int) -> list[str]:
    """The graph returns what the model does, call after call; the names of its states."""
    calls = [Call.of(hidden(n)) for n in rows or (3, 3, 5)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = capture(model, calls[0].args, dynamic_shapes={"x": {0: "batch"}})
    weights = {fqn: t.clone() for fqn, t in model.state_dict().items()}
    for want, got in zip(run_model(deepcopy(model), calls), run_graph(graph, calls, weights), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    return [state.fqns[0] for state in graph.states]
