"""The number of text tokens that an image takes, found by running the model's vision tower on fake tensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any
from unittest.mock import patch

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext
from torch.utils._pytree import tree_leaves

from ir.capture.export.meta_weights import without_memory
from ir.capture.sizes.iterated import iterated_as_one


def image_token_id(config: Any) -> int | None:
    """The id of the placeholder token of an image; None for models that have no such token."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(config, name, None), int):
            return token
    return None


def tokens_per_image(model: Any, pixels: torch.Tensor, token: int) -> int:
    """The number of places of `token` that one image takes, found on fake tensors; 0 if it cannot be found."""
    for rows in (lambda: sum(rows_of_images(model, {"pixel_values": pixels})), lambda: _placed(model, pixels, token)):
        try:
            return rows()
        except Exception:  # whatever the model's own code raises: it wants more than the pixels
            continue
    return 0


def rows_of_images(model: Any, inputs: Mapping[str, torch.Tensor]) -> list[int]:
    """The number of rows that the vision tower makes of each image, found on fake tensors.

    Raises what the model's own code does.
    """
    with torch.no_grad(), without_memory(model):
        found = model.get_image_features(**inputs)
    features = tree_leaves(getattr(found, "pooler_output", found))
    return [f.numel() // f.shape[-1] for f in features if isinstance(f, torch.Tensor) and f.dim() > 1]


def places_of_any_number(model: Any, pixels: torch.Tensor, token: int) -> int:
    """The number of places of `token` that each of any number of images takes; 0 where a model's code fixes a number.

    `pixels`: `[images, …]`, of two or more.
    """
    dims = [DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (pixels.dim() - 1)]
    try:
        with without_memory(model) as mode, iterated_as_one(lambda size: None), mode, enable_python_dispatcher():
            images = mode.from_tensor(pixels, symbolic_context=StatelessSymbolicContext(dynamic_sizes=dims))
            count = _placed(model, images, token)
    except Exception:  # whatever the model's own code raises, and torch for it
        return 0
    if not isinstance(count, torch.SymInt) or len(symbols := count.node.expr.free_symbols) != 1:
        return 0
    each = {count.node.expr.subs(dict.fromkeys(symbols, n)) / n for n in (1, 2, 3, 7)}
    return int(each.pop()) if len(each) == 1 else 0


class _PlacedError(Exception):
    """The end of a call that has made what stands in the places of an image."""


def _placed(model: Any, pixels: torch.Tensor, token: int) -> int:
    """The number of rows for which a call looks for places of `token`, as what a tower makes may be computed further.

    Raises what the model's own code does, and LookupError where it looks for no places.
    """
    found: list[int] = []

    def note(*args: Any, image_features: torch.Tensor, **kwargs: Any) -> None:
        found.append(image_features.numel() // image_features.shape[-1])
        raise _PlacedError

    with torch.no_grad(), without_memory(model), ExitStack() as patches:
        for module in (m for m in model.modules() if hasattr(m, _PLACES)):
            patches.enter_context(patch.object(module, _PLACES, note))
        with suppress(_PlacedError):
            model(input_ids=torch.full((1, 1), token), pixel_values=pixels)
    if not found:
        raise LookupError
    return found[0]


_PLACES = "get_placeholder_mask"
"""The method of transformers' models that looks for places, of features that it is given by name."""
