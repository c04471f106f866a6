"""A linear layer, and whether a checkpoint of it is read."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ir.checkpoint.checkpoint import Checkpoint

LAYER = nn.Linear(3, 5)
WEIGHTS = LAYER.state_dict()


def assert_read(path: Path) -> None:
    found = Checkpoint.open(path).for_model(nn.Linear(3, 5))
    assert not found.notes
    assert {name: found[name].tolist() for name in found} == {name: t.tolist() for name, t in WEIGHTS.items()}
