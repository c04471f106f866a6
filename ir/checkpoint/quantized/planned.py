"""Quantized weights of a model without its files: the stored tensors that the settings give each weight."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.libraries.methods import QUANTIZATION_METHODS, QuantizationMethod
from ir.checkpoint.quantized.libraries.scaled_codes import MethodSettings

_LEFT_OUT = (
    *("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"),
    *("llm_int8_skip_modules", "exclude", "skip_modules"),
)
"""The settings that name modules whose weights are not quantized."""


def hold_planned(model: nn.Module, name: str, settings: MethodSettings) -> int:
    """Have a model hold the stored tensors of a method for weights; returns the number of these weights.

    Linear layers and experts [experts, rows, columns] are quantized, but those that the settings leave out.
    """
    if name not in QUANTIZATION_METHODS:
        return 0
    method, count = QUANTIZATION_METHODS[name], 0
    for module, attribute in list(_weights(model, method, settings)):
        weight: Any = module._parameters[attribute]
        layout = method.layout(settings, weight)
        if layout is not None:
            scheme, tensors = layout
            names = tuple((what, attribute if what == "codes" else f"{attribute}_{what}") for what in tensors)
            outer = weight.shape[:-2]
            parts = {what: torch.empty((*outer, *n), dtype=d, device="meta") for what, (n, d) in tensors.items()}
            hold_stored(module, attribute, KeptWeight(scheme, names, weight.dtype), parts)
            count += 1
    return count


def _weights(model: nn.Module, method: QuantizationMethod, settings: MethodSettings) -> Iterator[tuple[nn.Module, str]]:
    """The modules with a quantized weight, and its name there."""
    head = _head(model)
    left_out = [str(key) for name in _LEFT_OUT for key in settings.get(name) or ()] or [head]
    for path, module in model.named_modules():
        if any(_names(key, path) for key in left_out):
            continue
        if isinstance(module, nn.Linear) and not method.experts_alone and (method.head or path != head):
            yield module, "weight"
        if path.rpartition(".")[2] == "experts":
            yield from ((module, name) for name, p in module.named_parameters(recurse=False) if p.ndim == 3)


def _head(model: Any) -> str:
    """The path of the layer that makes logits."""
    find = getattr(model, "get_output_embeddings", None)
    head = find() if find is not None else None
    return next((path for path, module in model.named_modules() if module is head), "lm_head")


def _names(key: str, path: str) -> bool:
    """Whether a key of the settings names a module: its path, the beginning or the end of it, or a pattern."""
    if key.startswith("re:"):
        return re.match(key.removeprefix("re:"), path) is not None
    return fnmatch(path, key) or path.startswith(f"{key}.") or path.endswith(f".{key}")
