"""Architectures from transformers, cut in three: the stages return what the model does, at sizes never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.checking import Call, check_artifact
from tests.zoo import MODELS

# Those that differ most: masks of many kinds, experts, shared layers, two towers, windows, convolutions, audio.
VARIED = ("llama", "mistral", "mixtral", "gemma2", "bloom", "albert", "deberta_v2", "bart", "swin", "clip", "wav2vec2")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in VARIED else pytest.mark.zoo) for n in MODELS]
)
def test_an_architecture_runs_in_three_stages(name: str, tmp_path: Path) -> None:
    entry = MODELS[name]
    torch.manual_seed(0)
    calls = [Call((), entry.inputs(batch, seq)) for batch, seq in ((2, 16), (3, 21), (1, 9))]
    plan = check_artifact(entry.model(), calls, tmp_path / "out", entry.dynamic, stages=3)
    assert len(plan.stages) == 3
