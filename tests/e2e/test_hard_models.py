"""Models that torch.export does not take as they are, cut and run from their folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.checking import Call, check_artifact
from tests.hard_models import HARD, WIDTH

SIZES = {"x": {0: "batch", 1: "seq"}}


@pytest.mark.parametrize("name", HARD)
def test_stages_of_a_hard_model_return_what_it_does(name: str, tmp_path: Path) -> None:
    model = HARD[name].make().eval()
    calls = [Call.of(torch.randn(batch, seq, WIDTH)) for batch, seq in ((2, 4), (3, 5), (1, 8))]
    plan = check_artifact(model, calls, tmp_path / "out", SIZES, 2)
    assert [bool(stage.graph.nodes) for stage in plan.stages] == [True, True]
