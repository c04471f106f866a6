"""Weights of ModelOpt."""

from __future__ import annotations

import torch

from ir.checkpoint.quantized.groups import Sources, Suffixes
from ir.checkpoint.quantized.libraries.layouts import (
    StoredLayout,
    StoredTensors,
    fp4_layout,
    group_count,
    scaled_layout,
)
from ir.checkpoint.quantized.libraries.scaled_codes import SCALE, Kinds, MethodSettings, scaled_codes, smoothed_scheme
from ir.checkpoint.quantized.packed import ModelOptInt4
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import SourceError

_LAYER = Suffixes(
    ".weight_scale",
    ".weight",
    {"codes": ".weight", "scale": ".weight_scale"},
    {
        "global_scale": ".weight_scale_2",
        "pre_scale": ".pre_quant_scale",
        "low_rank": ".svdquant_lora_a",
    },
)

_EXPERTS = Suffixes("_weight_scale", "", {"codes": "", "scale": "_weight_scale"})
"""The suffixes of experts in one tensor, which is a parameter of their module, as Llama 4 has them."""

_OF_MODELOPT = (
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "MXFP8",
    "W4A16_AWQ",
    "W4A8_AWQ",
    "W8A16",
    "W8A8_SQ_PER_CHANNEL",
    "NVFP4",
    "NVFP4_AWQ",
    "W4A16_NVFP4",
    "W4A8_MXFP4_FP8",
    "W4A8_NVFP4_FP8",
    "MIXED_PRECISION",
)
"""ModelOpt's algorithms whose weights are read."""


def modelopt_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of ModelOpt.  Raises SourceError for an algorithm whose weights are not read."""
    for algorithm in (settings, *(settings.get("quantized_layers") or {}).values()):
        if (name := algorithm.get("quant_algo")) is None and "kv_cache_quant_algo" in settings:
            continue  # the cache alone is quantized
        if name not in _OF_MODELOPT:
            raise SourceError(f"ModelOpt's {name} is not read; export the model as FP8 or NVFP4, or unquantized")
    return {_LAYER: _of_layer, _EXPERTS: _of_experts, SCALE: scaled_codes}


def _of_layer(parts: Sources) -> tuple[Scheme, Sources]:
    """The weight of a layer of ModelOpt, whose inputs may be scaled."""
    if "low_rank" in parts:
        raise SourceError("ModelOpt's weights with a part of low rank are not read; export the model as NVFP4")
    two_to_a_byte = parts["codes"].dtype == torch.uint8 and parts["scale"].dtype.itemsize > 1
    scheme: Scheme = ModelOptInt4() if two_to_a_byte else scaled_codes(parts)[0]
    return smoothed_scheme(scheme, parts)


def _of_experts(parts: Sources) -> tuple[Scheme, Sources]:
    """The weights of experts, with one scale for all of them, or one for each."""
    if parts["codes"].dtype != torch.float8_e4m3fn:
        raise SourceError("ModelOpt's experts in one tensor are read in FP8 alone; export the model as FP8")
    return scaled_codes(parts)


def modelopt_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight; None where the cache alone is quantized, or its groups do not fit."""
    if settings.get("quant_algo") is None:
        return None
    algorithm, (rows, columns) = str(settings["quant_algo"]), weight.shape[-2:]
    if "NVFP4" in algorithm:
        return fp4_layout(weight, int(settings.get("group_size") or 16), torch.float8_e4m3fn)
    if "MXFP4" in algorithm:
        return fp4_layout(weight, 32, torch.uint8)
    if algorithm in ("W4A16_AWQ", "W4A8_AWQ"):
        groups = group_count(settings, columns)
        whole: StoredTensors = {"global_scale": ((), torch.float32)} if algorithm == "W4A8_AWQ" else {}
        codes: StoredTensors = {"codes": ((rows // 2, columns), torch.uint8), "scale": ((rows, groups), weight.dtype)}
        return (ModelOptInt4(), codes | whole) if groups and rows % 2 == 0 else None
    if algorithm.startswith("W8"):
        return scaled_layout(weight, torch.int8, (rows, 1))
    return scaled_layout(weight, torch.float8_e4m3fn)
