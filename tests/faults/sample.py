"""An artifact that is whole, and what it was written from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from codegen.artifact.artifact import write_artifact
from codegen.picture.detail import Detail
from ir.plan import StagePlan
from ir.sources import Source
from passes.compilation.compiler import Compiler
from passes.compilation.summary import summarize
from passes.defaults import default_passes
from passes.pipeline import PassPipeline
from tests.support.models.planning import slow_machine

WIDTH = 8
STAGES = 3


class SampleModel(nn.Module):
    """Has what can go wrong: a tied weight, a state, a skip over a stage, sizes, two outputs, a constant."""

    total: torch.Tensor
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(6))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 16, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("total", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH) / 2, persistent=False)

    def forward(self, tokens: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
        batch, seq = tokens.shape
        x = skip = self.embed(tokens) * gain
        for layer in self.layers:
            x = layer(x).relu() + x * self.scale
        self.total.add_(x.sum((0, 1)))
        pairs = (x - skip).view(batch, seq // 2, 2, WIDTH).flip(2)
        return {"logits": self.head(self.norm(x + self.total)), "pairs": pairs}


@dataclass(frozen=True)
class Sample:
    """An artifact that is whole, and the compiler's data that it was written from."""

    folder: Path
    plan: StagePlan
    model: nn.Module

    @classmethod
    def compiled(cls, folder: Path) -> Sample:
        torch.manual_seed(0)
        model = SampleModel().eval()
        batch, seq = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("seq", min=2, max=64)
        source = Source(
            "sample",
            model,
            (torch.randint(16, (2, 4)), torch.ones(WIDTH)),
            {},
            dynamic_shapes={"tokens": {0: batch, 1: seq}, "gain": None},
            weights=model.state_dict(),
        )
        compiler = Compiler(PassPipeline(default_passes()), slow_machine(STAGES))
        folder.mkdir()
        return cls(folder, compiler.write(source, tuple(compiler.steps(source)), folder).plan, model)

    def write(self, plan: StagePlan, folder: Path) -> None:
        """Write another plan, without a picture."""
        folder.mkdir()
        summary = summarize(self.plan, "sample")
        with patch("codegen.picture.dot.render", return_value=False):
            for _ in write_artifact(plan, folder, "sample", self.model.state_dict(), Detail.modules, summary):
                pass
