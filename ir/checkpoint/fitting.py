"""The check that weights fit a graph: names, shapes, dtypes, and where their bytes lie."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from ir.checkpoint.checkpoint import Checkpoint, holds_values, is_computed, weight_source
from ir.checkpoint.formats.recognized import other_names
from ir.checkpoint.quantized.quantization import quantization_of
from ir.checkpoint.ties import check_ties
from ir.errors import SourceError
from ir.graph import Graph, Param, State
from ir.sizes import at
from ir.text.names import listed_names


def check_weights(graph: Graph, weights: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError where the weights lack a parameter of the graph, or hold another shape or kind of it."""
    states = [state for state in graph.states if state.data is None and not state.zeros]
    stored = [*graph.params, *states]
    missing = [v.fqns[0] for v in stored if not any(fqn in weights for fqn in v.fqns)]
    if missing:
        raise SourceError(f"{_origin(weights)} {listed_names(missing)}{_made_of(missing, stored, weights)}")
    if not isinstance(weights, Checkpoint):
        if any(weights[next(f for f in v.fqns if f in weights)].is_meta for v in stored):
            raise SourceError("the model's weights are on the meta device, without values; name a `checkpoint`")
        return
    for value in stored:
        _check_type(value, weights)
        check_ties(value, weights.tensors, str(weights))


def _origin(weights: Mapping[str, torch.Tensor]) -> str:
    """The start of a message about names that are missing, with what there is instead where none fits."""
    if not isinstance(weights, Checkpoint):
        return "the weights of the model hold no"
    held = [f"{key}.{name}".lstrip(".") for key, table in weights.tables.items() for name in table]
    instead = f" {listed_names(held, 3)}, and" if held and not weights else ""
    return f"the checkpoint {weights} holds{instead} no"


_WITHOUT_SETTINGS = (
    "and no settings are beside it: fetch the config.json that it came with, or save the model dequantized"
)

_CODES = {".qweight": "GPTQ or AWQ", ".weight_packed": "compressed-tensors"}
"""Endings of names that only tensors of quantized weights have, and what quantizes them."""


def _of_codes(name: str) -> str:
    """The library that has quantized the weight that a tensor of this name is of; empty for other names."""
    return next((library for ending, library in _CODES.items() if name.endswith(ending)), "")


def _made_of(missing: Sequence[str], stored: Sequence[Param | State], weights: Mapping[str, torch.Tensor]) -> str:
    """The end of such a message where a missing weight is made of others, as by weight_norm or FSDP; else empty."""
    parts = defaultdict[str, list[str]](list)
    known = {fqn for value in stored for fqn in value.fqns if _of_codes(fqn)}  # the model's own, whatever they are
    for table in weights.tables.values() if isinstance(weights, Checkpoint) else ():
        for name in table:
            if ".base_layer." in name:
                return f"; {name} is beside an adapter that is not merged: save what peft's merge_and_unload() returns"
            if (library := _of_codes(name)) and not known:
                return f"; {name} is of a weight quantized by {library}, {_WITHOUT_SETTINGS}"
            if name.endswith("_flat_param"):
                return f"; FSDP has joined them in {name}: save the state dict with StateDictType.FULL_STATE_DICT"
            parts[_PART.sub(r"\1\2\3", name)].append(name)
    other = other_names(name for part in parts.values() for name in part)
    if other and other != other_names(fqn for value in stored for fqn in value.fqns):  # which a model may have itself
        return f"; {other}"
    for name in missing:
        if made_of := [part for part in parts.get(name, ()) if part != name]:
            return f"; it makes {name} of {' and '.join(made_of)}: build the model so, or undo that before it is saved"
    return ""


_PART = re.compile(r"^(|.*\.)parametrizations\.([^.]+)\..*|^(.+)_(?:g|v|orig|mask)$")
"""The names of what a weight is computed from, with that of the weight in them."""


def check_linked(weights: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError unless the weights are in files that stages can read."""
    if not isinstance(weights, Checkpoint):
        raise SourceError("--weights link points into a checkpoint's files, and this model's weights are in memory")
    if any(is_computed(tensor) for tensor in weights.tensors.values()):
        raise SourceError(
            f"--weights link points into a checkpoint's files, and {weights} has quantized weights, which stages hold "
            "dequantized; say --weights copy, or --quantized keep"
        )


def _check_type(value: Param | State, weights: Checkpoint) -> None:
    found, name = weight_source(weights, value.fqns), value.fqns[0]
    if found.dtype != value.type.dtype and not _converts(found.dtype, value.type.dtype):
        held = {name for table in weights.tables.values() for name in table}
        scales = [f"{fqn}{end}" for fqn in value.fqns for end in ("_scale", "_scale_inv")]
        if scale := next((scale for scale in scales if scale in held and quantization_of(weights.path) is None), ""):
            raise SourceError(f"{name} is {_spelled(found.dtype)} in {weights}: {scale} scales it, {_WITHOUT_SETTINGS}")
        raise SourceError(
            f"{name} is {_spelled(found.dtype)} in {weights} and {_spelled(value.type.dtype)} in the model: quantized "
            "weights cannot be read; convert the checkpoint to bfloat16 first"
        )
    if found.shape != tuple(at(d, {}) for d in value.type.shape):
        raise SourceError(f"{name} is {list(found.shape)} in {weights} and {value.type} in the model")


def _converts(stored: torch.dtype, own: torch.dtype) -> bool:
    """Whether a tensor of the model takes values of another dtype, as `load_state_dict` copies them."""
    values = holds_values(stored) or not (stored.is_floating_point or stored.is_complex)
    return (holds_values(stored) and holds_values(own)) or (values and not (own.is_floating_point or own.is_complex))


def _spelled(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
