"""Weights of bitsandbytes."""

from __future__ import annotations

import torch

from ir.checkpoint.formats.json_text import parsed_json
from ir.checkpoint.quantized.four_bit_floats import BitsAndBytes4Bit, BitsAndBytes8Bit
from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, StoredTensors
from ir.checkpoint.quantized.libraries.scaled_codes import Kinds, MethodSettings
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import SourceError

_SCB = Suffixes(".SCB", ".weight", {"codes": ".weight", "scale": ".SCB"}, {"format": ".weight_format"})

_NF4, _FP4 = (
    Suffixes(
        f".quant_state.bitsandbytes__{kind}",
        "",
        {"codes": "", "absmax": ".absmax", "table": ".quant_map", "state": f".quant_state.bitsandbytes__{kind}"},
        {"nested_absmax": ".nested_absmax", "nested_table": ".nested_quant_map"},
    )
    for kind in ("nf4", "fp4")
)


def bitsandbytes_kinds(_: MethodSettings) -> Kinds:
    """The kinds of bitsandbytes."""
    return {_SCB: _eight_bit, _NF4: _four_bit, _FP4: _four_bit}


def _eight_bit(parts: Sources) -> tuple[Scheme, Sources]:
    if "format" in parts and int(parts["format"].read(torch.int64)):
        raise SourceError("bitsandbytes' weights in a GPU's order are not read; save the model with a newer version")
    return BitsAndBytes8Bit(), {name: parts[name] for name in ("codes", "scale")}


def _four_bit(parts: Sources) -> tuple[Scheme, Sources]:
    state = parsed_json(bytes(parts["state"].read(torch.uint8).tolist()))
    scheme = BitsAndBytes4Bit(
        shape=tuple(state["shape"]),
        dtype=getattr(torch, state["dtype"]),
        block=int(state["blocksize"]),
        nested_block=int(state.get("nested_blocksize", 0)),
        offset=float(state.get("nested_offset", 0.0)),
    )
    return scheme, {name: part for name, part in parts.items() if name != "state"}


def bitsandbytes_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight; None where blocks of 64 do not divide it."""
    rows, columns = weight.shape[-2:]
    if not settings.get("load_in_4bit"):
        return BitsAndBytes8Bit(), {"codes": ((rows, columns), torch.int8), "scale": ((rows,), torch.float32)}
    if rows * columns % 64:
        return None
    nested, blocks = bool(settings.get("bnb_4bit_use_double_quant")), rows * columns // 64
    coarse: StoredTensors = {
        "nested_absmax": ((-(-blocks // 256),), torch.float32),
        "nested_table": ((256,), torch.float32),
    }
    return BitsAndBytes4Bit((rows, columns), weight.dtype, 64, 256 if nested else 0), {
        "codes": ((rows * columns // 2, 1), torch.uint8),
        "absmax": ((blocks,), torch.uint8 if nested else torch.float32),
        "table": ((16,), torch.float32),
        **(coarse if nested else {}),
    }
