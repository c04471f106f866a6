"""Stack traces of recorded nodes: those of torch, without its description of the whole stack."""

from __future__ import annotations

from unittest.mock import patch

import torch
from torch import nn
from torch.fx import proxy

from ir.capture.source_lines.stack_traces import stack_traces_of_forwards


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return doubled(self.linear(x).relu())


class Outer(nn.Module):
    step: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.register_buffer("step", torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = torch.sym_max(x.shape[0], 3) * self.step
        return self.inner(x) * scale + self.inner(x)


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def traces() -> list[tuple[str, str | None]]:
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Outer(), (torch.ones(5, 4),), dynamic_shapes=({0: batch},))
    return [(node.name, node.stack_trace) for node in program.graph.nodes]


def test_nodes_have_the_stack_traces_that_torch_gives_them() -> None:
    wanted = traces()
    with stack_traces_of_forwards(), patch.object(proxy, "CapturedTraceback", None):
        assert traces() == wanted
    assert sum(trace is not None for _, trace in wanted) > 8
    assert traces() == wanted
