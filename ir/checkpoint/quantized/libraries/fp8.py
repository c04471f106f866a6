"""Weights of transformers' fp8 and mxfp8, with scales of blocks, and of vLLM's and SGLang's forms of these."""

from __future__ import annotations

from functools import partial

import torch

from ir.checkpoint.quantized.groups import Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, scaled_layout
from ir.checkpoint.quantized.libraries.scaled_codes import (
    SCALE,
    Kinds,
    MethodSettings,
    block_size,
    codes_in_blocks,
    scaled_codes,
)
from ir.checkpoint.quantized.scaled import Scaled

_SCALE_INV = Suffixes("_scale_inv", "", {"codes": "", "scale": "_scale_inv"})

_SHORT_SCALE = Suffixes(".scale", ".weight", {"codes": ".weight", "scale": ".scale"})


def _block(settings: MethodSettings) -> tuple[int, int] | None:
    """The rows and columns of fp8's blocks: 128 where the settings name none, as in transformers; None for null."""
    return block_size(settings.get("weight_block_size", (128, 128)))


def fp8_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of transformers' fp8, and of vLLM's, which has a scale a weight, as embeddings do in transformers."""
    block = _block(settings)
    if block is None or "weight_block_size" in settings:
        scaled = partial(scaled_codes, block=block)
    else:
        scaled = partial(codes_in_blocks, [block], wide=True)
    return {_SCALE_INV: scaled, _SHORT_SCALE: scaled, SCALE: scaled}


def mxfp8_kinds(_: MethodSettings) -> Kinds:
    """The kinds of mxfp8, whose blocks are those that the scales divide a weight into, as in transformers."""
    return dict.fromkeys((_SCALE_INV, _SHORT_SCALE, SCALE), scaled_codes)


def fp8_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout:
    """The stored tensors of a weight: codes, and a scale a block or a single one."""
    block, (rows, columns) = _block(settings), weight.shape[-2:]
    if block is None:
        return scaled_layout(weight, torch.float8_e4m3fn)
    _, tensors = scaled_layout(weight, torch.float8_e4m3fn, (-(-rows // block[0]), -(-columns // block[1])))
    return Scaled(block), tensors


def int8_blocks_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout:
    """The stored tensors of a weight as those of fp8, but in int8."""
    scheme, tensors = fp8_layout(settings, weight)
    return scheme, {**tensors, "codes": (tensors["codes"][0], torch.int8)}


def mxfp8_layout(_: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight: codes, and an exponent for 32 columns of a row; None where these do not fit."""
    rows, columns = weight.shape[-2:]
    return None if columns % 32 else scaled_layout(weight, torch.float8_e4m3fn, (rows, columns // 32), torch.uint8)
