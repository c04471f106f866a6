"""Architectures that differ most, cut in three: the stages return what the model does, at sizes never seen."""

from __future__ import annotations

import pytest

from tests.zoo import KINDS, MODELS
from tests.zoo.measure import STAGES, measure

# Tied weights, experts, a recurrence, two towers of text, shared layers, windows, a detector, sound, an image among
# words, skip connections.
VARIED = (
    "gpt2",
    "mixtral",
    "mamba2",
    "t5",
    "albert",
    "swin",
    "detr",
    "whisper",
    "llava",
    "unet2d_condition",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_an_architecture_runs_in_three_stages(name: str) -> None:
    result = measure(name, MODELS[name])
    assert result.good, result
    assert result.stages == STAGES


def test_every_model_of_the_zoo_has_its_own_name() -> None:
    assert sum(map(len, KINDS.values())) == len(MODELS)
