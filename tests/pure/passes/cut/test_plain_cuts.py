"""The cuts that split-stages chooses among those that are nearly as good, and those that a user asks for."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from ir.capture import capture
from ir.errors import PlanError
from ir.graph import Call, Graph
from ir.plan import plan_stages
from passes.check_sizes import CheckSizes
from passes.compilation.summary import summarize
from passes.cut.cut_problem import as_problem
from passes.cut.named_cuts import between_modules
from tests.support.models.planning import planned, slow_machine
from tests.support.seeds import made_once


class Block(nn.Module):
    """A residual block: inside it, two values are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(32, 8), nn.Linear(8, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(self.first(x)))


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(6))
        self.head = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@made_once
def tower() -> Graph:
    return capture(Tower().eval(), (torch.randn(8, 32),))


def received(graph: Graph, devices: int) -> list[int]:
    """How many values each stage but the first receives."""
    return [len(stage.recvs) for stage in plan_stages(graph, slow_machine(devices)).stages[1:]]


@pytest.mark.parametrize(("devices", "slack"), [(2, 0.05), (3, 0.12)])
def test_by_default_it_parts_layers_where_that_costs_little(devices: int, slack: float) -> None:
    best, plain = (planned(tower(), slow_machine(devices), slack=share) for share in (0.0, slack))
    assert received(plain, devices) == [1] * (devices - 1)
    assert plain.split.place == "between layers"
    assert best.split.above == 0.0 <= plain.split.above <= slack
    assert plain.split.value <= (1 + slack) * best.split.value
    assert (best.split.place, received(best, devices)[0]) == ("inside layers.3", 2) or devices == 3


def test_it_says_what_a_plain_cut_costs_and_saves() -> None:
    cluster = slow_machine(2)
    graph = planned(tower(), cluster, slack=0.05)
    summary = summarize(plan_stages(graph, cluster), "tower")
    assert (summary.place, summary.proven, summary.cut_bytes) == ("between layers", True, 8 * 32 * 4)
    assert summary.best_cut_bytes > summary.cut_bytes
    assert summary.above == pytest.approx(summary.bottleneck_seconds / graph.split.best - 1)


def test_layers_stay_whole_on_request() -> None:
    """Also where a cut inside one would be better by much."""
    graph = planned(tower(), slow_machine(4), cut_at="between-modules", slack=0.0)
    assert graph.split.place == "between layers"
    assert graph.split.above > 0.05
    with pytest.raises(PlanError, match="9 devices need a stage each"):
        planned(tower(), slow_machine(9), cut_at="between-modules")


class Scaled(Block):
    """A block that makes what the blocks after it read, too, as T5's first one does, if it is not given."""

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        scale = torch.arange(32.0) / 32 if scale is None else scale
        return super().forward(x) * scale, scale


class ScaledTower(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Scaled() for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = None
        for layer in self.layers:
            x, scale = layer(x, scale)
        return self.head(x)


def test_what_a_layer_makes_cheaply_for_others_is_made_in_each_stage() -> None:
    graph = planned(capture(ScaledTower().eval(), (torch.randn(8, 32),)), slow_machine(3))
    problem = as_problem(graph, slow_machine(3))
    cheap = {i for i, node in enumerate(problem.nodes) if node.cheap}
    groups = between_modules(graph, problem).groups
    assert cheap
    assert len(groups) == 6
    assert cheap.isdisjoint(i for group in groups for i in group)


def test_a_stage_begins_where_the_user_says() -> None:
    graph = planned(tower(), slow_machine(3), cut_before=("layers.4", "layers.1"))
    calls = [n for n in graph.nodes if isinstance(n, Call)]
    first = [next(n for n in calls if n.stage == stage).where.module for stage in (1, 2)]
    assert first == ["layers.1.first", "layers.4.first"]
    assert graph.split.above > 0.1


class Mixing(nn.Module):
    """A layer that computes a weight for the next one, which mixes its inputs by it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.left, self.right = (nn.Parameter(torch.randn(32, 32)) for _ in range(2))

    def forward(self, x: torch.Tensor, mix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x) @ mix, self.left @ self.right


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mixing() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mix = torch.eye(32)
        for layer in self.layers:
            x, mix = layer(x, mix)
        return x


@pytest.mark.parametrize("options", [{"cut_before": ("layers.2",)}, {"cut_at": "between-modules"}])
def test_a_cut_of_the_user_parts_a_weight_from_the_layer_that_reads_it(options: dict[str, Any]) -> None:
    rows = {"x": {0: "batch"}}
    mixed = capture(Mixed().eval(), (torch.randn(8, 32),), dynamic_shapes=rows)
    graph = CheckSizes().run(planned(mixed, slow_machine(2), **options), slow_machine(2))
    stages = {n.where.module.removesuffix(".first"): n.stage for n in graph.nodes if isinstance(n, Call)}
    assert stages == {"": 0, "layers.0": 0, "layers.1": 0, "layers.2": 1, "layers.3": 1}
    assert graph.split.good_for


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("layers.9",), "no module `layers.9` is called; there is `layers.5`"),
        (("encoder",), "no module `encoder` is called; those that are: "),
        (("layers.0",), "no cut before layers.0: devices [0] hold no node"),
        (("layers.1", "layers.2"), "2 devices need 1 modules to cut before, and 2 are named"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(names: tuple[str, ...], fault: str) -> None:
    with pytest.raises(PlanError, match=re.escape(fault)):
        planned(tower(), slow_machine(2), cut_before=names)
