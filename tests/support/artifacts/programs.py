"""Artifacts of several programs over the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codegen.artifact.artifact import write_artifact
from codegen.picture.detail import Detail
from ir.analysis.programs import merged
from ir.capture import capture
from ir.graph import Graph
from ir.plan import StagePlan, plan_stages
from passes.compilation.summary import summarize
from tests.support.models.planning import planned, slow_machine

WIDTH = 8
GRIDS = {"small": [2, 2], "wide": [3, 4]}


class Grid(nn.Module):
    """The values of `grid` decide shapes.  It has a tied weight, a state, and a buffer that no checkpoint holds."""

    total: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WIDTH, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.head = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("total", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH) / 2, persistent=False)

    def forward(self, x: torch.Tensor, grid: torch.Tensor) -> dict[str, torch.Tensor]:
        x = x[:, : int(grid.prod())]
        for layer in self.layers:
            x = layer(x).relu() + x * self.scale
        self.total.add_(x.sum((0, 1)))
        return {"y": self.head(x) + self.total, "rows": x.view(x.shape[0], *grid.tolist(), WIDTH)}


class Encoder(nn.Module):
    """Reads `tokens` of shape [batch, seq]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WIDTH, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x).relu()
        return x


class Scorer(nn.Module):
    """Reads `ids` of shape [batch] by the encoder's embedding, and has a norm of its own."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.embed = encoder.embed
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norm(self.embed(ids))
        return x, x.sum(-1)


def write_grids(model: Grid, folder: Path, stages: int) -> StagePlan:
    """A program for each of `GRIDS`."""

    def graph(grid: Sequence[int]) -> Graph:
        args = (torch.randn(2, 12, WIDTH), torch.tensor(grid))
        return capture(deepcopy(model), args, {}, dynamic_shapes={"x": {0: "batch"}, "grid": None}, fix=("grid",))

    parts = [(name, {"grid": grid}, graph(grid)) for name, grid in GRIDS.items()]
    return write_programs(parts, model.state_dict(), folder, stages)


def write_encoder_and_scorer(encoder: Encoder, scorer: Scorer, folder: Path, stages: int) -> StagePlan:
    """The programs `encode` and `score`."""
    tokens, ids = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    parts = [
        ("encode", {}, capture(encoder, (tokens,), {}, dynamic_shapes={"tokens": {0: "batch", 1: "seq"}})),
        ("score", {}, capture(scorer, (ids,), {}, dynamic_shapes={"ids": {0: "count"}})),
    ]
    return write_programs(parts, encoder.state_dict() | scorer.state_dict(), folder, stages)


def write_programs(
    parts: Sequence[tuple[str, Mapping[str, Any], Graph]],
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    stages: int,
) -> StagePlan:
    """An artifact of the programs `parts`: name, condition and graph of each.  Returns its plan."""
    graph = merged([(name, condition, 1.0, graph) for name, condition, graph in parts])
    plan = plan_stages(planned(graph, slow_machine(stages)), slow_machine(stages))
    folder.mkdir()
    for _ in write_artifact(plan, folder, "model", weights, Detail.modules, summarize(plan, "model")):
        pass
    return plan
