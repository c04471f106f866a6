"""Weights of torchao."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.quantized.four_bit_floats import Fp4
from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, scaled_layout
from ir.checkpoint.quantized.libraries.scaled_codes import Kinds, MethodSettings, smoothed_scheme
from ir.checkpoint.quantized.packed import TorchaoInt4, TorchaoTiles
from ir.checkpoint.quantized.scaled import Scaled, Swizzled
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import SourceError

SAID_BY_HEADER = "._weight_header"
"""The ending of the name of what a file's header says of a weight, as bytes of JSON: torchao's shapes and orders."""

_QDATA = Suffixes(
    "._weight_qdata",
    ".weight",
    {"codes": "._weight_qdata", "scale": "._weight_scale"},
    {
        "zeros": "._weight_zero_point",
        "pre_scale": "._weight_act_pre_scale",
        "global_scale": "._weight_per_tensor_scale",
        "said": SAID_BY_HEADER,
    },
)

_TILES, _SHUFFLED = (
    Suffixes(
        f"._weight_{scale}",
        ".weight",
        {"codes": "._weight_qdata", "scale": f"._weight_{scale}"},
        {"pre_scale": "._weight_act_pre_scale", "said": SAID_BY_HEADER},
    )
    for scale in ("scale_and_zero", "group_scale")
)


def torchao_kinds(_: MethodSettings) -> Kinds:
    """The kinds of torchao."""
    return {_QDATA: _torchao, _TILES: _torchao_tiles, _SHUFFLED: _for_one_kernel}


def _torchao(parts: Sources) -> tuple[Scheme, Sources]:
    codes, scale = parts["codes"], parts["scale"]
    said, parts = _said(parts), {name: part for name, part in parts.items() if name != "said"}
    if scale.dtype.itemsize == 1:
        return _torchao_blocks(said, parts), parts
    if codes.dtype not in (torch.int8, torch.float8_e4m3fn):
        raise SourceError("torchao's weights are read if they are int4, int8 or float8 alone; save the model so")
    if "zeros" in parts and parts["zeros"].dtype.is_floating_point and codes.dtype == torch.int8:
        return smoothed_scheme(TorchaoInt4(), parts)
    return smoothed_scheme(Scaled(wide=False), parts)


def _torchao_blocks(said: Mapping[str, Any], parts: Sources) -> Scheme:
    """The scheme of weights with scales of a byte, MX and NVFP4, which may lie in the order of a kernel."""
    if "is_swizzled_scales" not in said:
        raise SourceError(
            "torchao's weights with scales of a byte are read where the header of their file says the order of these; "
            "save the model with save_pretrained"
        )
    codes = parts["codes"]
    inner: Scheme = Fp4() if codes.dtype == torch.uint8 else Scaled(wide=False)
    if not said["is_swizzled_scales"]:
        return inner
    if len(codes.shape) != inner.dims:
        raise SourceError("torchao's weights of experts with swizzled scales are not read; save the model dequantized")
    columns = codes.shape[1] * (2 if codes.dtype == torch.uint8 else 1)
    (block,) = _numbers(said, "block_size", 1)
    return Swizzled(inner, -(-columns // block))


def _said(parts: Sources) -> Mapping[str, Any]:
    """The attributes of a weight that a file's header says; empty where it says none."""
    try:
        found = parsed_json(bytes(parts["said"].read(torch.uint8).tolist()))["_data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _numbers(said: Mapping[str, Any], name: str, count: int) -> Sequence[int]:
    """The last numbers of an attribute of a weight.  Raises SourceError where the header does not say so many."""
    found = said.get(name)
    numbers: list[Any] = found if isinstance(found, list) else [found]
    if len(numbers) < count or not all(isinstance(number, int) and number > 0 for number in numbers):
        raise SourceError(f"the header of a file says {name}={found} of a weight of torchao's; save the model anew")
    return numbers[-count:]


def _torchao_tiles(parts: Sources) -> tuple[Scheme, Sources]:
    tiles, strips, _, words = parts["codes"].shape[-4:]
    said = _said(parts)
    rows, columns = _numbers(said, "shape", 2) if "shape" in said else (8 * tiles, 32 * strips * words)
    scheme = TorchaoTiles(columns, row_count=0 if rows == 8 * tiles else rows)
    return smoothed_scheme(scheme, {name: part for name, part in parts.items() if name != "said"})


def _for_one_kernel(parts: Sources) -> tuple[Scheme, Sources]:
    raise SourceError(
        "torchao's int4 weights that are shuffled for one kernel are not read; save the model with "
        'Int4WeightOnlyConfig(int4_packing_format="plain")'
    )


def torchao_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout:
    """The stored tensors of a weight: of 4 bits with zeros, else of 8 with a scale a row."""
    kinds: Any = settings.get("quant_type")
    kind = (kinds.get("default") if isinstance(kinds, dict) else None) or {}
    rows, columns = weight.shape[-2:]
    if "Int4" not in str(kind.get("_type")):
        return scaled_layout(weight, torch.int8, (rows, 1), weight.dtype)
    groups = -(-columns // int((kind.get("_data") or {}).get("group_size", 128)))
    scale = (groups, rows), weight.dtype
    return TorchaoInt4(), {"codes": ((rows, columns // 2), torch.int8), "scale": scale, "zeros": scale}
