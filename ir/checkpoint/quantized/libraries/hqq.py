"""Weights of HQQ."""

from __future__ import annotations

from typing import Any

import torch

from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout
from ir.checkpoint.quantized.libraries.scaled_codes import Kinds, MethodSettings
from ir.checkpoint.quantized.packed import Hqq
from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError

_SAID = (
    "axis",
    "channel_wise",
    "compute_dtype",
    "encoded_state_dict",
    "group_size",
    "nbits",
    "offload_meta",
    "optimize",
    "packing",
    "quant_scale",
    "quant_zero",
    "round_zero",
    "shape",
    "stores_quant_config",
    "unpack_view_dtype",
    "view_as_float",
)
"""What is said of a weight beside it, each by a tensor of its own."""

_CODES = Suffixes(
    ".W_q",
    ".weight",
    {"codes": ".W_q", "scale": ".scale", "zeros": ".zero", "shape": ".shape", "nbits": ".nbits"},
    {name: f".{name}" for name in _SAID if name not in ("shape", "nbits")},
)

_ALONE = Suffixes(".W_q", ".weight", {"codes": ".W_q"})


def hqq_kinds(_: MethodSettings) -> Kinds:
    """The kinds of HQQ."""
    return {_CODES: _of_layer, _ALONE: _of_codes_alone}


def _of_layer(parts: Sources) -> tuple[Scheme, Sources]:
    """The weight of a layer.  Raises SourceError for a form that is not read."""
    bits, codes, scale = _number(parts["nbits"]), parts["codes"], parts["scale"]
    quantized = any(name in parts and _number(parts[name]) for name in ("quant_scale", "quant_zero"))
    if bits not in (1, 2, 3, 4, 8) or codes.dtype.is_floating_point or quantized:
        raise SourceError(
            "HQQ's weights are read if they have 1, 2, 3, 4 or 8 bits, are stored as integers (`view_as_float=False`), "
            "and have scales and zeros that are not quantized; save the model so"
        )
    shape = tuple(int(n) for n in parts["shape"].read(parts["shape"].dtype))
    return Hqq(bits, shape), {"codes": codes, "scale": scale, "zeros": parts["zeros"]}


def _of_codes_alone(_: Sources) -> tuple[Scheme, Sources]:
    raise SourceError(
        "HQQ's weights are read with tensors beside them that say their bits and shape (`nbits`, `shape`), as "
        "save_pretrained writes them; save the model so"
    )


def _number(tensor: Tensorlike) -> int:
    return int(tensor.read(tensor.dtype).item())


def hqq_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight; None where its groups do not fill bytes."""
    said: Any = (settings.get("quant_config") or {}).get("weight_quant_params") or {}
    (rows, columns), bits, size = weight.shape[-2:], said.get("nbits"), said.get("group_size")
    count = rows * columns
    if bits not in (1, 2, 4, 8) or not size or count % size or (count // size * bits) % 8 or size * bits % 8:
        return None
    groups = count // size
    across = said.get("axis", 1) == 0  # groups are columns
    codes = (size * bits // 8, groups) if across else (groups * bits // 8, size)
    scale = ((1, groups) if across else (groups, 1)), weight.dtype
    return Hqq(bits, (rows, columns)), {"codes": (codes, torch.uint8), "scale": scale, "zeros": scale}
