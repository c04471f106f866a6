"""Weights of compressed-tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ir.checkpoint.quantized.four_bit_floats import Fp4
from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, StoredTensors, fp4_layout, scaled_layout
from ir.checkpoint.quantized.libraries.packed_numbers import bits_that_fit, groups_of_columns
from ir.checkpoint.quantized.libraries.scaled_codes import SCALE, Kinds, MethodSettings, block_size, codes_in_blocks
from ir.checkpoint.quantized.packed import PackedRows
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import SourceError

_PACKED = Suffixes(
    "_packed",
    "",
    {"codes": "_packed", "scale": "_scale"},
    {"zeros": "_zero_point", "g_idx": "_g_idx", "shape": "_shape", "global_scale": "_global_scale"},
)

_OF_WEIGHTS = ("weight_input", "weight_output")

_SPARSE = Suffixes(".bitmask", ".weight", {"codes": ".compressed", "mask": ".bitmask"})


def compressed_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of compressed-tensors.  Raises SourceError for a format that is not read."""
    blocks = [block_size((group.get("weights") or {}).get("block_structure")) for group in _groups(settings)]
    scaled = partial(codes_in_blocks, [block for block in dict.fromkeys(blocks) if block])
    if any(group.get("format") == "mxfp6-pack-quantized" for group in (*_groups(settings), settings)):
        raise SourceError("the format mxfp6-pack-quantized is not read; save the model as mxfp8-quantized")
    if any(group.get("format") == "marlin-24" for group in (*_groups(settings), settings)):
        raise SourceError("the format marlin-24 is not read; save the model as pack-quantized")
    if any(location not in _OF_WEIGHTS for location in _transforms(settings)):
        raise SourceError("weights between rotations (`transform_config`) are not read; save the model dequantized")
    bits = {int((group.get("weights") or {}).get("num_bits") or 4) for group in _groups(settings)}
    packed = partial(_packed, named=bits.pop() if len(bits) == 1 else 4)
    return {_PACKED: packed, SCALE: scaled, _SPARSE: _without_zeros}


def _transforms(settings: MethodSettings) -> Iterator[str]:
    """The places of rotations; those of weights are in the stored weights already."""
    for scheme in ((settings.get("transform_config") or {}).get("config_groups") or {}).values():
        applied = scheme.get("apply") or [{}]
        yield from (str(args.get("location")) for args in applied)


def _without_zeros(parts: Sources) -> tuple[Scheme, Sources]:
    raise SourceError("weights without their zeros (sparse-bitmask) are not read; save the model dense")


def _groups(settings: MethodSettings) -> list[Mapping[str, Any]]:
    return [group for group in (settings.get("config_groups") or {}).values() if isinstance(group, Mapping)]


def _packed(parts: Sources, named: int = 4) -> tuple[Scheme, Sources]:
    """Integers of the bits that go with the shapes, of these the `named` ones; and FP4, which is in bytes."""
    codes = parts["codes"]
    tensors = {name: part for name, part in parts.items() if name not in ("shape", "g_idx")}
    if codes.dtype == torch.uint8:
        return Fp4(divided=True), tensors
    if "shape" not in parts:
        raise SourceError("packed weights have no `weight_shape`")
    columns = int(parts["shape"].read(torch.int64)[-1])
    bits = bits_that_fit(codes.shape[-1], columns, named)
    if not bits:
        raise SourceError("packed weights are read if they have 2 to 8 bits; save the model so")
    if "g_idx" in parts and int(parts["g_idx"].read(torch.int64).min()) >= 0:
        groups_of_columns(parts, parts["scale"].shape[-1])
        tensors["g_idx"] = parts["g_idx"]
    return PackedRows(bits, columns), tensors


def compressed_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight, as the first group of settings has them; None where these do not fit it."""
    group: Any = next(iter((settings.get("config_groups") or {}).values()), None) or {}
    weights, form = group.get("weights") or {}, str(group.get("format") or settings.get("format"))
    bits, size = int(weights.get("num_bits", 8)), int(weights.get("group_size") or 0)
    if form.endswith("fp4-pack-quantized"):
        return fp4_layout(weight, size or 16, torch.float8_e4m3fn if "nv" in form else torch.uint8)
    rows, columns = weight.shape[-2:]
    groups = columns // size if size > 0 else 1
    if form != "pack-quantized":
        by_channel = weights.get("strategy") != "tensor"
        codes = torch.int8 if weights.get("type") == "int" else torch.float8_e4m3fn
        return scaled_layout(weight, codes, (rows, groups) if by_channel else (), weight.dtype, wide=False)
    if not 2 <= bits <= 8 or columns % groups or columns * bits % 32:
        return None
    symmetric = weights.get("symmetric", True)
    zeros: StoredTensors = {} if symmetric else {"zeros": ((-(-rows * bits // 32), groups), torch.int32)}
    tensors: StoredTensors = {
        "codes": ((rows, columns * bits // 32), torch.int32),
        "scale": ((rows, groups), weight.dtype),
    }
    return PackedRows(bits, columns), tensors | zeros
