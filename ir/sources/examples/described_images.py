"""Images whose sizes a model is told, and takes them apart by: what it is given, and the tokens in their places."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch

from ir.capture.packed.each_tensor import takes_sizes
from ir.capture.packed.prompts import known_counters
from ir.capture.packed.towers import takes_grids
from ir.errors import SourceError
from ir.sources.examples.configured import configured_image_size, configured_value
from ir.sources.examples.image_tokens import rows_of_images

TOKEN_KINDS = "mm_token_type_ids"
"""The input that says of each token whether it stands in the place of an image."""
DESCRIPTIONS = {"image_grid_thw": 3, "image_sizes": 2}
"""Inputs of which each may describe images, by the patches of each or by its pixels, in so many numbers."""


@dataclass(frozen=True)
class DescribedImages:
    """Images as a model takes them, and the ids of a text in whose places each stands."""

    said: str  # their sizes
    inputs: Mapping[str, torch.Tensor]
    places: Sequence[torch.Tensor]
    counts_positions: bool = False  # whether the positions of a text are counted by them
    told_kinds: bool = False  # whether the model counts these itself, and is told which tokens are of images


def described_images(model: Any, config: Any, token: int, given: Mapping[str, torch.Tensor]) -> DescribedImages:
    """The images of a description, one of `DESCRIPTIONS`.  Raises SourceError for images that the model cannot have."""
    for name, images in given.items():
        if images.shape[1] != DESCRIPTIONS[name]:
            raise SourceError(f"`{name}` has {DESCRIPTIONS[name]} numbers an image, and {images.tolist()} is given")
        if not bool((images > 0).all()):
            raise SourceError(f"`{name}` has numbers of 1 or more, and {images.tolist()} is given")
    if "image_grid_thw" in given:
        return _of_patches(model, config, token, given["image_grid_thw"])
    return _of_pixels(model, config, token, given["image_sizes"])


def images_of_any_grid(model: Any, config: Any, token: int) -> DescribedImages | None:
    """Two images for a model that reads grids of any sizes; None for another one."""
    side = getattr(getattr(config, "vision_config", None), "spatial_merge_size", None)
    if not takes_grids(model) or not isinstance(side, int):
        return None
    try:
        grid = torch.tensor(_ROWS_AND_COLUMNS) * torch.tensor([1, side, side])
        images = _of_patches(model, config, token, grid)
        rows = rows_of_images(model, images.inputs)
    except Exception:  # whatever the model's own code raises, and settings of other names
        return None
    as_placed = [int((places == token).sum()) for places in images.places]
    if as_placed != rows:
        return None
    told_kinds = TOKEN_KINDS in inspect.signature(model.forward).parameters and bool(known_counters(model))
    return replace(images, told_kinds=told_kinds)


def images_of_any_size(model: Any, config: Any, token: int) -> DescribedImages | None:
    """Two images for a model whose tower is told the sizes of images, which may be any; None for another one."""
    unit = pixels_of_place(model, config)
    if not unit:
        return None
    try:
        return _of_pixels(model, config, token, torch.tensor(_ROWS_AND_COLUMNS)[:, 1:] * unit)
    except SourceError:
        return None


def pixels_of_place(model: Any, config: Any) -> int:
    """Rows and columns of pixels that make a token, for a model whose tower is told the sizes of images; else 0."""
    patch = configured_value(config, "patch_size")
    if not takes_sizes(model) or not isinstance(patch, int):
        return 0
    return patch * (configured_value(config, "spatial_merge_size") or 1)


_ROWS_AND_COLUMNS = [[1, 8, 8], [1, 6, 10]]
"""Frames, and rows and columns of tokens, of images whose grids may change."""


def _of_patches(model: Any, config: Any, token: int, grid: torch.Tensor) -> DescribedImages:
    """Images of `[images, 3]` frames, rows and columns of patches, which lie one after the other."""
    vision = config.vision_config
    if bool((grid[:, 1:] % (side := vision.spatial_merge_size)).any()):
        raise SourceError(f"images of {grid.tolist()} do not fit: {side} rows and columns of patches make a token")
    start, end = (getattr(config, f"vision_{end}_token_id", token - 1) for end in ("start", "end"))
    patches = grid.prod(dim=1)
    places = [torch.tensor([start, *[token] * (int(n) // side**2), end]) for n in patches]
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(int(patches.sum()), width, dtype=model.dtype)
    inputs = {"pixel_values": pixels, "image_grid_thw": grid}
    return DescribedImages(str(grid.tolist()), inputs, places, counts_positions=True)


def _of_pixels(model: Any, config: Any, token: int, sizes: torch.Tensor) -> DescribedImages:
    """Images of `[images, 2]` rows and columns of pixels: each whole, or in tiles of one size."""
    channels = configured_value(config, "num_channels", "in_channels") or 3
    tiles = configured_value(config, "image_grid_pinpoints")
    if tiles:
        side, _ = configured_image_size(config)
        most = max(_tiles(row, tiles, side) for row in sizes.tolist())
        shape = (len(sizes), most, channels, side, side)
    else:
        shape = (len(sizes), channels, *sizes.amax(dim=0).tolist())
    inputs = {"pixel_values": torch.randn(shape, dtype=model.dtype), "image_sizes": sizes}
    if "batch_num_images" in inspect.signature(model.forward).parameters:
        inputs["batch_num_images"] = torch.ones(len(sizes), dtype=torch.int64)  # one image a text
    try:
        rows = rows_of_images(model, inputs)
    except Exception as e:  # whatever the model's own code raises
        raise SourceError(f"images of {sizes.tolist()} do not fit {type(model).__name__}: {e}") from e
    return DescribedImages(str(sizes.tolist()), inputs, [torch.full((n,), token) for n in rows])


def _tiles(size: Sequence[int], resolutions: Sequence[Sequence[int]], side: int) -> int:
    """The tiles of an image, of `side` rows and columns, and the whole image before them."""
    best = import_module("transformers.image_processing_utils").select_best_resolution(tuple(size), resolutions)
    rows, columns = (-(-int(length) // side) for length in best)
    return 1 + rows * columns
