"""Layouts: the stored tensors that a library has in place of a weight, known without its files."""

from __future__ import annotations

from typing import TypeAlias

import torch

from ir.checkpoint.quantized.four_bit_floats import Fp4
from ir.checkpoint.quantized.libraries.scaled_codes import MethodSettings
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme

StoredTensors: TypeAlias = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each stored tensor by what it is, the codes first."""

StoredLayout: TypeAlias = tuple[Scheme, StoredTensors]


def scaled_layout(
    weight: torch.Tensor,
    codes: torch.dtype,
    scale: tuple[int, ...] = (),
    dtype: torch.dtype = torch.float32,
    wide: bool = True,
) -> StoredLayout:
    """Codes of a weight [rows, columns], and scales of this shape and dtype."""
    return Scaled(wide=wide), {"codes": (tuple(weight.shape[-2:]), codes), "scale": (scale, dtype)}


def fp4_layout(weight: torch.Tensor, group: int, scale: torch.dtype) -> StoredLayout | None:
    """Two codes a byte, a scale a group of columns and, if scales are FP8, one of all; None where groups do not fit."""
    rows, columns = weight.shape[-2:]
    if columns % group:
        return None
    whole: StoredTensors = {"global_scale": ((), torch.float32)} if scale == torch.float8_e4m3fn else {}
    return Fp4(), {"codes": ((rows, columns // 2), torch.uint8), "scale": ((rows, columns // group), scale), **whole}


def group_count(settings: MethodSettings, columns: int) -> int:
    """The number of groups of columns, of 128 where the settings name no size; 0 where they do not divide them."""
    size = int(settings.get("group_size") or settings.get("q_group_size") or 128)
    return 1 if size < 0 else 0 if columns % size else columns // size
