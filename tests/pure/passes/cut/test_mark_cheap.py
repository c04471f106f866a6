"""Masks and position tables are cheap: computed again in each stage, not sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ir.capture import capture
from ir.cost import FREE
from ir.graph import Call, Graph
from ir.machine.cluster import Cluster, Link
from ir.text.printer import op_name
from passes.annotate_cost import AnnotateCost
from passes.cheap.mark_cheap import MarkCheap
from passes.group_shared import GroupShared
from passes.propagate_shapes import PropagateShapes
from tests.support.models.graphs import graph, relu, state, value
from tests.support.models.model_cases import X
from tests.support.models.planning import DEVICE, machine
from tests.support.models.written import hidden


def marked(graph: Graph, cluster: Cluster | None = None) -> list[str]:
    """The operators that are cheap."""
    cluster = cluster or machine(2)
    for step in (PropagateShapes(), AnnotateCost(), GroupShared(), MarkCheap()):
        graph = step.run(graph, cluster)
    return [op_name(n).removeprefix("aten.") for n in graph.nodes if isinstance(n, Call) and n.cheap]


class Layers(nn.Module):
    """A layer, whose output meets something computed from the input's sizes or values."""

    def __init__(self, compute: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.compute = nn.Linear(8, 8), compute

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.compute(x)


def cheap(compute: Callable[[torch.Tensor], torch.Tensor], cluster: Cluster | None = None) -> list[str]:
    return marked(capture(Layers(compute), (hidden(),), dynamic_shapes=X), cluster)


def test_a_mask_from_sizes() -> None:
    assert cheap(lambda x: torch.ones(x.shape[1], x.shape[1]).tril()[None, :, :1]) == [
        "ones",
        "tril",
        "unsqueeze",
        "slice.Tensor",
    ]


class Masked(nn.Module):
    """A layer times a mask that is made of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * (ids[..., None] > 0).float()


def test_a_mask_from_an_input() -> None:
    graph = capture(Masked(), (hidden(), torch.ones(2, 4, dtype=torch.int64)))
    assert marked(graph) == ["unsqueeze", "gt.Scalar", "to.dtype"]


def test_what_is_made_of_floating_point_inputs_is_the_models_own_work() -> None:
    assert cheap(lambda x: (x[..., :1] > 0).float()) == []


def test_layers_are_not_cheap() -> None:
    assert cheap(lambda x: torch.zeros(())) == ["zeros"]


def test_what_reads_an_expensive_value_is_not_cheap() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    assert marked(capture(model, (hidden(),))) == []


def test_chance_is_not_repeated() -> None:
    """Two stages must not see two different random masks."""
    assert cheap(lambda x: torch.rand(x.shape[1], 1)) == []


def test_state_is_not_read_twice() -> None:
    count = state("count")
    read = replace(relu(count, "read"), cost=FREE)
    [node] = MarkCheap().run(graph([value("x")], [read], read.results), machine(2)).nodes
    assert not node.cheap


def test_sending_over_a_link_without_delay_beats_any_work() -> None:
    free = Cluster.uniform((DEVICE, DEVICE), Link(bandwidth=float("inf"), latency=0.0))
    assert cheap(lambda x: torch.ones(x.shape[1], 8).tril(), free) == []
