"""The methods that quantize checkpoints: how each names its tensors, and the scheme that its settings mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ir.checkpoint.quantized.four_bit_floats import Mxfp4Experts
from ir.checkpoint.quantized.groups import Suffixes
from ir.checkpoint.quantized.libraries.bitsandbytes import bitsandbytes_kinds, bitsandbytes_layout
from ir.checkpoint.quantized.libraries.compressed_tensors import compressed_kinds, compressed_layout
from ir.checkpoint.quantized.libraries.fp8 import fp8_kinds, fp8_layout, int8_blocks_layout, mxfp8_kinds, mxfp8_layout
from ir.checkpoint.quantized.libraries.gptq import (
    auto_round_kinds,
    auto_round_layout,
    awq_kinds,
    awq_layout,
    gptq_kinds,
    gptq_layout,
)
from ir.checkpoint.quantized.libraries.hqq import hqq_kinds, hqq_layout
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, scaled_layout
from ir.checkpoint.quantized.libraries.modelopt import modelopt_kinds, modelopt_layout
from ir.checkpoint.quantized.libraries.quark import quark_kinds, quark_layout
from ir.checkpoint.quantized.libraries.scaled_codes import SCALE, Kinds, MethodSettings, scaled_codes
from ir.checkpoint.quantized.libraries.torchao import torchao_kinds, torchao_layout


@dataclass(frozen=True)
class QuantizationMethod:
    """A method by which a library quantizes checkpoints.

    `kinds`: the suffixes of its tensors, each with the function that makes a scheme of these; raises SourceError for a
    form that is not read.  `layout`: the tensors that it stores for a weight [..., rows, columns]; None where it leaves
    such a weight as it is.
    """

    kinds: Callable[[MethodSettings], Kinds]
    layout: Callable[[MethodSettings, torch.Tensor], StoredLayout | None]
    experts_alone: bool = False
    head: bool = True  # whether the layer that makes logits is quantized, where the settings leave out others alone
    activations: bool = False  # whether activations are always quantized, too
    own_layers: bool = False  # whether it puts linear layers of its own in the place of those whose weights lie across


_BLOCKS = Suffixes("_blocks", "", {"codes": "_blocks", "scale": "_scales"})


def _channel_kinds(_: MethodSettings) -> Kinds:
    return {SCALE: scaled_codes}


def _channel_layout(codes: torch.dtype, _: MethodSettings, weight: torch.Tensor) -> StoredLayout:
    return scaled_layout(weight, codes, (weight.shape[-2], 1))


def _mxfp4_kinds(_: MethodSettings) -> Kinds:
    return {_BLOCKS: lambda parts: (Mxfp4Experts(), parts)}


def _mxfp4_layout(_: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    rows, columns = weight.shape[-2:]
    if rows % 32:
        return None
    codes, scale = (columns, rows // 32, 16), (columns, rows // 32)
    return Mxfp4Experts(), {"codes": (codes, torch.uint8), "scale": (scale, torch.uint8)}


QUANTIZATION_METHODS: Mapping[str, QuantizationMethod] = {
    "fp8": QuantizationMethod(fp8_kinds, fp8_layout),
    "mxfp8": QuantizationMethod(mxfp8_kinds, mxfp8_layout),
    "fbgemm_fp8": QuantizationMethod(_channel_kinds, partial(_channel_layout, torch.float8_e4m3fn)),
    "w8a8-fp8": QuantizationMethod(_channel_kinds, partial(_channel_layout, torch.float8_e4m3fn), activations=True),
    "w8a8-int8": QuantizationMethod(_channel_kinds, partial(_channel_layout, torch.int8), activations=True),
    "blockwise-int8": QuantizationMethod(fp8_kinds, int8_blocks_layout),
    "modelopt": QuantizationMethod(modelopt_kinds, modelopt_layout),
    "compressed-tensors": QuantizationMethod(compressed_kinds, compressed_layout),
    "gptq": QuantizationMethod(gptq_kinds, gptq_layout, head=False, own_layers=True),
    "awq": QuantizationMethod(awq_kinds, awq_layout, head=False, own_layers=True),
    "auto-round": QuantizationMethod(auto_round_kinds, auto_round_layout, head=False, own_layers=True),
    "mxfp4": QuantizationMethod(_mxfp4_kinds, _mxfp4_layout, experts_alone=True),
    "bitsandbytes": QuantizationMethod(bitsandbytes_kinds, bitsandbytes_layout, own_layers=True),
    "torchao": QuantizationMethod(torchao_kinds, torchao_layout),
    "quark": QuantizationMethod(quark_kinds, quark_layout),
    "hqq": QuantizationMethod(hqq_kinds, hqq_layout),
}

KNOWN = " and ".join(", ".join(QUANTIZATION_METHODS).rsplit(", ", 1))  # "fp8, …, quark and hqq"
