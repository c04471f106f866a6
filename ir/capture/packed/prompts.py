"""Positions of texts among images of any grids: what transformers' `get_rope_index` counts in Python, by operators."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ir.capture.packed.pieces import is_unknown

_INDEX = "get_rope_index"
_IMAGE = 1  # the kind of a token in the place of an image, as processors have it; 0 is that of a text's


def prompt_positions(kinds: Tensor, grid: Tensor, mask: Tensor | None, merge: int) -> Tensor:
    """Frame, row and column of each token, `int64[3, texts, seq]`: of a text's, the same number three times.

    `kinds`: `[texts, seq]`, 1 in the places of an image, each of which is a run of them; `grid`: `int64[images, 3]` of
    frames, rows and columns of patches, `merge` rows and columns of which make a token.  What the `mask` leaves out is
    at 0, and not counted.
    """
    real = torch.ones_like(kinds, dtype=torch.bool) if mask is None else mask.bool()
    order = (~real).long().argsort(dim=1, stable=True)  # what is masked goes behind each text
    real, image = real.gather(1, order), ((kinds == _IMAGE) & real).gather(1, order)
    first = image & ~pad(image[:, :-1], (1, 0))
    which = (first.flatten().cumsum(0) - 1).clamp(min=0, max=grid.shape[0] - 1).view(first.shape)
    height, width = ((grid[:, column] // merge)[which].clamp(min=1) for column in (1, 2))
    index = torch.arange(kinds.shape[1], device=kinds.device).expand(kinds.shape)
    began = torch.where(first, index, 0).cummax(1).values
    taken = torch.where(image, torch.where(first, torch.maximum(height, width), 0), real.long())
    done = taken.cumsum(1) - taken
    within, start = index - began, done.gather(1, began)
    places = torch.stack([within // (height * width), within // width % height, within % width])
    found = torch.where(real, torch.where(image, places + start, done), 0)
    return torch.zeros_like(found).scatter(2, order.expand(found.shape), found)


def _index_and_shift(kinds: Tensor, grid: Tensor, mask: Tensor | None, merge: int) -> tuple[Tensor, Tensor]:
    """`get_rope_index`: positions, and by how much the next one is off the number of tokens, `int64[texts, 1]`."""
    positions = prompt_positions(kinds, grid, mask, merge)
    counts = kinds.shape[1] if mask is None else mask.bool().sum(1)
    return positions, (positions.amax((0, 2)) + 1 - counts)[:, None]


@dataclass(frozen=True)
class RunsOfImages:
    """The places of images in a call: each is a run of `value` in an input, as long as its grid says."""

    kinds: str  # the input with the value
    value: int
    mask: str  # the input that says what is left out; "": nothing is
    grid: str
    merge: int


@contextmanager
def prompts_as_operators(
    counters: Sequence[tuple[nn.Module, int]], inputs: Mapping[int, str], seen: Callable[[RunsOfImages], object]
) -> Iterator[None]:
    """Record positions that are counted by kinds and grids without values as operators, inside the context.

    `counters` are `known_counters`; `inputs` are names by id of the tensor; `seen` is given what a call must be
    checked for.
    """
    with ExitStack() as contexts:
        for module, merge in counters:
            counted = _counting(getattr(module, _INDEX), merge, inputs, seen)
            contexts.enter_context(patch.object(module, _INDEX, counted))
        yield


def _counting(
    original: Callable[..., Any], merge: int, inputs: Mapping[int, str], seen: Callable[[RunsOfImages], object]
) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def counted(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        taken = {name: t for name, t in {**given, **given.get("kwargs", {})}.items() if isinstance(t, Tensor)}
        kinds, grid, mask = (taken.pop(name, None) for name in _TAKEN)
        taken.pop("input_ids", None)  # whose shape is read alone
        named = all(id(t) in inputs for t in (kinds, grid, mask) if t is not None)
        if taken or kinds is None or grid is None or not named or not (is_unknown(kinds) and is_unknown(grid)):
            return original(*args, **kwargs)
        seen(RunsOfImages(inputs[id(kinds)], _IMAGE, inputs.get(id(mask), ""), inputs[id(grid)], merge))
        return _index_and_shift(kinds, grid, mask, merge)

    return counted


_TAKEN = ("mm_token_type_ids", "image_grid_thw", "attention_mask")


def known_counters(model: nn.Module) -> list[tuple[nn.Module, int]]:
    """The modules whose `get_rope_index` gives the same numbers for a few prompts, and the `merge` of each."""
    found = []
    for module in model.modules():
        merge = getattr(getattr(getattr(module, "config", None), "vision_config", None), "spatial_merge_size", None)
        if hasattr(module, _INDEX) and isinstance(merge, int) and _agrees(getattr(module, _INDEX), merge):
            found.append((module, merge))
    return found


def _agrees(index: Callable[..., Any], merge: int) -> bool:
    kinds, sides = torch.tensor(_KINDS), torch.tensor(_SIDES)
    grid = sides * torch.tensor([1, merge, merge])
    mask = torch.tensor(_MASK)
    try:
        for masked in (mask, None):
            if masked is None:
                kinds, grid = kinds[1:], grid[1:]  # a text that is not padded
            given = {"mm_token_type_ids": kinds, "image_grid_thw": grid, "attention_mask": masked}
            wanted = index(torch.ones_like(kinds), **given)
            if not all(map(torch.equal, wanted, _index_and_shift(kinds, grid, masked, merge))):
                return False
    except Exception:  # whatever the code of another model raises
        return False
    return True


_KINDS = [[0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]]
_MASK = [[0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0], [1] * 14]
_SIDES = [[1, 2, 3], [1, 2, 1], [2, 1, 4]]
