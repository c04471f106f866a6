"""The number of text tokens that an image takes, found by running the model's vision tower on fake tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ir.capture.export.meta_weights import without_memory


def image_token_id(config: Any) -> int | None:
    """The id of the placeholder token of an image; None for models that have no such token."""
    for name in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(config, name, None), int):
            return token
    return None


def tokens_per_image(model: Any, pixels: torch.Tensor) -> int:
    """The number of rows that the vision tower makes of one image, found on fake tensors; 0 if it cannot be found."""
    try:
        return sum(rows_of_images(model, {"pixel_values": pixels}))
    except Exception:  # whatever the model's own code raises: it wants more than the pixels
        return 0


def rows_of_images(model: Any, inputs: Mapping[str, torch.Tensor]) -> list[int]:
    """The number of rows that the vision tower makes of each image, found on fake tensors.

    Raises what the model's own code does.
    """
    with torch.no_grad(), without_memory(model):
        found = model.get_image_features(**inputs)
    features = tree_leaves(getattr(found, "pooler_output", found))
    return [f.numel() // f.shape[-1] for f in features if isinstance(f, torch.Tensor) and f.dim() > 1]
