"""Codes with scales of blocks, as several libraries name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from ir.checkpoint.quantized.four_bit_floats import Fp4
from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.quantized.smoothed import Smoothed
from ir.errors import SourceError

MethodSettings: TypeAlias = Mapping[str, Any]
"""The fields of a `quantization_config`."""

Kinds: TypeAlias = Mapping[Suffixes, Callable[[Sources], tuple[Scheme, Sources]]]
"""The suffixes of a library, each with the function that makes a scheme of the tensors that have them."""

SCALE = Suffixes("_scale", "", {"codes": "", "scale": "_scale"}, {"zeros": "_zero_point", "global_scale": "_scale_2"})


def scaled_codes(parts: Sources, block: tuple[int, int] | None = None, wide: bool = True) -> tuple[Scheme, Sources]:
    """Codes and scales; integers that the scales say are two to a byte are FP4."""
    codes = parts["codes"]
    if "global_scale" in parts or (codes.dtype in (torch.int8, torch.uint8) and parts["scale"].dtype.itemsize == 1):
        return Fp4(), parts
    if codes.dtype.itemsize > 1:
        raise ValueError(f"{codes.dtype} in place of codes, as before the model is compressed")
    _check_blocks(codes.shape, parts["scale"].shape, block)
    return Scaled(block, wide), parts


def _check_blocks(codes: tuple[int, ...], scale: tuple[int, ...], block: tuple[int, int] | None) -> None:
    """Raise ValueError for scales that are neither those of blocks of this size nor of blocks that divide the codes."""
    sizes = (*(1,) * (len(codes) - 2), *(block or (0, 0))[-len(codes) :])
    for n, count, size in zip(codes, (*scale, *(1,) * len(codes)), sizes, strict=False):
        if count == 0 or (n % count if not size else count not in (1, n, -(-n // size))):
            raise ValueError(
                f"scales {list(scale)} of codes {list(codes)}" + (f" in blocks of {block}" if block else "")
            )


def block_size(size: Any) -> tuple[int, int] | None:
    """The rows and columns of a block, as settings name them; None where they name none."""
    return (int(size[0]), int(size[1])) if size else None


def smoothed_scheme(scheme: Scheme, parts: Sources) -> tuple[Scheme, Sources]:
    """The scheme of a weight whose inputs may be scaled first."""
    return (Smoothed(scheme) if "pre_scale" in parts else scheme), parts


def codes_in_blocks(blocks: Sequence[tuple[int, int]], parts: Sources, wide: bool = False) -> tuple[Scheme, Sources]:
    """Codes and scales, one for each block of a size that goes with their shapes."""
    (rows, columns), counts = parts["codes"].shape[-2:], parts["scale"].shape[-2:]
    fitting = {
        (min(rows, down), min(columns, across)): (down, across)
        for down, across in blocks
        if counts == (-(-rows // down), -(-columns // across))
    }
    if len(fitting) > 1:
        listed = " and ".join(f"{down} x {across}" for down, across in fitting.values())
        raise SourceError(f"blocks of {listed} go with one weight alike; save the model dequantized")
    return scaled_codes(parts, block=next(iter(fitting.values()), None), wide=wide)
