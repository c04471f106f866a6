"""Positions of texts among images that are counted by operators, as transformers counts them in Python."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLModel, Qwen2VLModel, Qwen3VLModel

from ir.capture.packed.prompts import known_counters, prompt_positions

MERGE = 2


class Counter(nn.Module):
    """What a model of transformers counts with, without its weights."""

    def __init__(self, cls: type[nn.Module]) -> None:
        super().__init__()
        vision = SimpleNamespace(spatial_merge_size=MERGE, tokens_per_second=2)
        self.config = SimpleNamespace(vision_config=vision)
        self._cls: Any = cls

    def get_rope_index(self, *args: Any, **kwargs: Any) -> Any:
        return self._cls.get_rope_index(self, *args, **kwargs)

    def get_vision_position_ids(self, *args: Any, **kwargs: Any) -> Any:
        return self._cls.get_vision_position_ids(self, *args, **kwargs)


class Behind(Counter):
    """One that leaves a position free behind each image."""

    def get_rope_index(self, *args: Any, **kwargs: Any) -> Any:
        positions, shift = super().get_rope_index(*args, **kwargs)
        return positions + (kwargs["mm_token_type_ids"].diff(prepend=kwargs["mm_token_type_ids"][:, :1]) < 0), shift


def some_prompts(random: Random) -> tuple[Tensor, Tensor, Tensor]:
    """Kinds of the tokens of texts, padded on either side, the grids of their images, and the mask."""
    texts, grid = [], []
    for _ in range(random.randint(1, 3)):
        kinds = [0] * random.randint(0, 2)
        for _ in range(random.randint(0, 3)):
            sides = [random.randint(1, 2), random.randint(1, 4), random.randint(1, 4)]
            grid.append([sides[0], sides[1] * MERGE, sides[2] * MERGE])
            kinds += [1] * (sides[0] * sides[1] * sides[2]) + [0] * random.randint(1, 3)
        texts.append(kinds or [0])
    longest, left = max(map(len, texts)), random.random() < 0.5
    padded = [([0] * (longest - len(k)) + k, k + [0] * (longest - len(k)))[not left] for k in texts]
    mask = [([0] * (longest - len(k)) + [1] * len(k), [1] * len(k) + [0] * (longest - len(k)))[not left] for k in texts]
    return torch.tensor(padded), torch.tensor(grid or [[1, 2, 2]]), torch.tensor(mask)


@pytest.mark.parametrize("seed", range(40))
def test_they_are_those_of_transformers(seed: int) -> None:
    kinds, grid, mask = some_prompts(Random(seed))
    model: Any = Counter(Qwen2_5_VLModel)
    wanted, _ = model.get_rope_index(
        torch.ones_like(kinds), mm_token_type_ids=kinds, image_grid_thw=grid, attention_mask=mask
    )
    assert torch.equal(prompt_positions(kinds, grid, mask, MERGE), wanted)
    if len(kinds) == 1:
        assert torch.equal(prompt_positions(kinds, grid, None, MERGE), wanted)


def test_models_that_count_otherwise_are_left_alone() -> None:
    for cls in (Qwen2VLModel, Qwen2_5_VLModel, Qwen3VLModel):
        assert [merge for _, merge in known_counters(Counter(cls))] == [MERGE]
        assert known_counters(Behind(cls)) == []


def test_a_text_is_counted_from_its_first_token_on() -> None:
    kinds = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]])
    rows = prompt_positions(kinds, torch.tensor([[1, 4, 4]]), torch.tensor([[0] + [1] * 7]), MERGE)
    assert rows[:, 0].tolist() == [[0, 0, 1, 1, 1, 1, 3, 4], [0, 0, 1, 1, 2, 2, 3, 4], [0, 0, 1, 2, 1, 2, 3, 4]]
    assert all(a <= b for a, b in pairwise(rows[0, 0].tolist()))
