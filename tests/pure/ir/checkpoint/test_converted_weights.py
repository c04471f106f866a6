"""Weights that a file has in another dtype than the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.fitting import check_weights
from ir.errors import SourceError
from ir.graph import State, Value
from ir.sizes import TensorType
from tests.support.models.graphs import graph


@pytest.mark.parametrize(
    ("stored", "own", "taken"),
    [
        (torch.float16, torch.int64, True),  # of a state dict that was halved as a whole
        (torch.int32, torch.int64, True),
        (torch.uint8, torch.bool, True),
        (torch.complex64, torch.int64, False),
        (torch.float8_e5m2, torch.int64, False),
        (torch.int8, torch.float32, False),
        (torch.int8, torch.complex64, False),
    ],
)
def test_integers_are_taken_from_other_numbers(
    stored: torch.dtype, own: torch.dtype, taken: bool, tmp_path: Path
) -> None:
    torch.save({"a": torch.ones(4).to(stored)}, tmp_path / "c.pt")
    state = State("a", TensorType((4,), own), fqns=("a",))
    x = Value("x", TensorType((4,), own))
    held = replace(graph([x], [], [x]), states=(state,))
    if taken:
        return check_weights(held, Checkpoint.open(tmp_path / "c.pt"))
    with pytest.raises(SourceError, match=r"a is .* in the model: quantized weights cannot be read"):
        check_weights(held, Checkpoint.open(tmp_path / "c.pt"))
