"""Images of several texts in one tensor, where texts with fewer images have padding of zeros behind theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ir.capture.packed.padding import MASK, PIXELS, leave_out_padding
from ir.sources.examples.configured import configured_image_size, configured_value
from ir.sources.examples.image_tokens import rows_of_images


@dataclass(frozen=True)
class PaddedImages:
    """Images as a model takes them, of which some texts have fewer than others."""

    inputs: Mapping[str, Tensor]  # `[texts, images, …]`
    counts: Sequence[int]  # of the images of each text
    each: int  # places of an image
    dims: Mapping[str, Mapping[int, str]]  # the sizes that may change


def padded_images(model: Any, config: Any, texts: int) -> PaddedImages | None:
    """Images for a model that leaves out those of zeros; None for another one."""
    if not leave_out_padding(model):
        return None
    pixels = _pixels(model, config, texts, 2)
    if not (each := _rows(model, pixels[:1, :1])):
        return None
    counts = [2 - i % 2 for i in range(texts)]
    mask = torch.ones_like(pixels[:, :, 0], dtype=torch.int64)
    for i, count in enumerate(counts):
        pixels[i, count:], mask[i, count:] = 0, 0
    dims = {0: "batch", 1: "images"} if texts > 1 else {1: "images"}
    inputs = {PIXELS: pixels, MASK: mask}
    sides = dict.fromkeys(inputs, {-2: "height", -1: "width"} if any_sides(model, pixels) else {})
    named = {name: dims | {inputs[name].dim() + d: side for d, side in of.items()} for name, of in sides.items()}
    return PaddedImages(inputs, counts, each, named)


def any_sides(model: Any, pixels: Tensor) -> bool:
    """Whether images `[texts, images, channels, rows, columns]` take as many places where they are twice as wide."""
    wide = torch.cat([pixels[:1, :1]] * 2, -1)
    return _rows(model, pixels[:1, :1]) == _rows(model, wide) > 0


def _pixels(model: Any, config: Any, texts: int, images: int) -> Tensor:
    """Images of the model's own size: each has a number that is not zero."""
    channels = configured_value(config, "num_channels", "in_channels") or 3
    return torch.randn(texts, images, channels, *configured_image_size(config), dtype=model.dtype)


def _rows(model: Any, image: Tensor) -> int:
    """The places of an image `[1, 1, …]`, found on fake tensors; 0 where the model takes no such image."""
    try:
        [rows] = rows_of_images(model, {PIXELS: image})
    except Exception:  # whatever the model's own code raises
        return 0
    return rows
