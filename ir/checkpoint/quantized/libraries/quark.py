"""Weights of AMD Quark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ir.checkpoint.quantized.four_bit_floats import Fp4
from ir.checkpoint.quantized.groups import Sources
from ir.checkpoint.quantized.libraries.gptq import awq_layout
from ir.checkpoint.quantized.libraries.layouts import StoredLayout, fp4_layout, scaled_layout
from ir.checkpoint.quantized.libraries.scaled_codes import SCALE, Kinds, MethodSettings, scaled_codes
from ir.checkpoint.quantized.packed import Awq
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import SourceError

_READ = {
    "fp8_e4m3": ("per_tensor", "per_channel", "per_block"),
    "int8": ("per_tensor", "per_channel"),
    "fp4": ("per_group",),
    "int4": ("per_group",),
    "uint4": ("per_group",),
}
"""The ways of scaling in which weights are read, by their dtypes as Quark calls them."""

_FOUR_BITS = ("int4", "uint4")


def quark_kinds(settings: MethodSettings) -> Kinds:
    """The kinds of Quark.  Raises SourceError for a form that is not read."""
    specs = [*_specs(settings)]
    for spec in specs:
        named = spec if isinstance(spec, Mapping) else {"dtype": "a scheme of several levels"}
        dtype, scheme = str(named.get("dtype")), str(named.get("qscheme"))
        if scheme not in _READ.get(dtype, ()):
            raise SourceError(
                f"Quark's weights in {dtype}, scaled {scheme}, are not read; export the model in fp8_e4m3, int8, int4 "
                "or MXFP4, or unquantized"
            )
    if any(_turns(algorithm) for algorithm in settings.get("algo_config") or ()):
        raise SourceError("Quark's weights between rotations that are made at each call are not read; export without")
    packed = {str(spec["dtype"]) for spec in specs if spec["dtype"] in _FOUR_BITS}
    if packed and (settings.get("export") or {}).get("pack_method", "reorder") != "reorder":
        raise SourceError("Quark's weights of 4 bits are read in the order `reorder`; export the model with that")
    if len(packed) > 1:
        raise SourceError("Quark's weights in int4 beside some in uint4 are not read; export all in one of these")
    return {SCALE: partial(_of_layer, "int4" in packed)}


def _specs(settings: MethodSettings) -> Iterator[Any]:
    """The settings of weights: of all layers, and of some."""
    layers = (settings.get("layer_quant_config") or {}).values()
    kinds = (settings.get("layer_type_quant_config") or {}).values()
    for config in (settings.get("global_quant_config"), *layers, *kinds):
        if isinstance(config, Mapping) and config.get("weight"):
            yield config["weight"]


def _turns(algorithm: Any) -> bool:
    """Whether an algorithm leaves rotations of activations to be made at each call."""
    if not isinstance(algorithm, Mapping) or "rotation" not in str(algorithm.get("name")):
        return False
    return any(bool(value) for key, value in algorithm.items() if "online" in key or key in ("r3", "r4"))


def _of_layer(signed: bool, parts: Sources) -> tuple[Scheme, Sources]:
    """The weight of a layer: words of 4 bits in AWQ's layout, FP4 in bytes, or codes with their scales."""
    if parts["codes"].dtype.itemsize == 4 and not parts["codes"].dtype.is_floating_point:
        if "zeros" not in parts:
            raise SourceError("Quark's weights of 4 bits are read with zeros beside them; export the model anew")
        return Awq(signed), parts
    if parts["codes"].dtype == torch.uint8:
        return Fp4(), {name: part for name, part in parts.items() if name != "zeros"}
    return scaled_codes(parts)


def quark_layout(settings: MethodSettings, weight: torch.Tensor) -> StoredLayout | None:
    """The stored tensors of a weight, as the settings of all layers have them; None where these do not fit it."""
    spec: Any = (settings.get("global_quant_config") or {}).get("weight")
    kind = spec.get("dtype") if isinstance(spec, Mapping) else None
    if kind == "fp4":
        return fp4_layout(weight, int(spec.get("group_size") or 32), torch.uint8)
    if kind in _FOUR_BITS:
        layout = awq_layout({"group_size": spec.get("group_size")}, weight)
        return layout and (Awq(kind == "int4"), layout[1])
    if kind not in ("fp8_e4m3", "int8"):
        return None
    codes = torch.float8_e4m3fn if kind == "fp8_e4m3" else torch.int8
    return scaled_layout(weight, codes, weight.shape[-2:-1] if spec.get("qscheme") == "per_channel" else ())
