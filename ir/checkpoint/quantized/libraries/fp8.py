"""Weights of transformers' fp8, with scales of blocks."""

from __future__ import annotations

from functools import partial

from ir.checkpoint.quantized.groups import Suffixes
from ir.checkpoint.quantized.libraries.scaled_codes import (
    Kinds,
    MethodSettings,
    block_size,
    codes_in_blocks,
    scaled_codes,
)

_SCALE_INV = Suffixes("_scale_inv", "", {"codes": "", "scale": "_scale_inv"})

_SHORT_SCALE = Suffixes(".scale", ".weight", {"codes": ".weight", "scale": ".scale"})


def fine_grained_block(settings: MethodSettings) -> tuple[int, int] | None:
    """The rows and columns of fp8's blocks: 128 where the settings name none, as in transformers; None for null."""
    return block_size(settings.get("weight_block_size", (128, 128)))


def fp8_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of transformers' fp8."""
    block = fine_grained_block(settings)
    if block is None or "weight_block_size" in settings:
        scaled = partial(scaled_codes, block=block)
    else:
        scaled = partial(codes_in_blocks, [block], wide=True)
    return {_SCALE_INV: scaled, _SHORT_SCALE: scaled}
