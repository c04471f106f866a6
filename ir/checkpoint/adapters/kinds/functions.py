"""Kinds of adapters whose changes are functions of the weight, which they read as well as add to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.layer import AdapterKind, LayerAdapter, LayerChange
from ir.checkpoint.adapters.retrained import AdapterParts, NoFit, increased
from ir.checkpoint.adapters.settings import BY_HAND, SETTINGS
from ir.errors import SourceError

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "swish": nn.functional.silu,
    "mish": nn.functional.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}
"""Functions by transformers' names of them."""


def glora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """A weight and a bias, each scaled and added to.  The bias reads the weight as it was."""
    yield of.by(scaled_and_moved)
    if any(part.startswith(("glora_C.X", "glora_D.X", "glora_E.X")) for part in of.parts):
        more = {"weight": of.base[of.name]} if of.name in of.base else {}
        yield "bias", partial(of.retrained, moved_bias, more=more)


def osf(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(of_smaller_values)


def deft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """A subspace taken out, with other rows in its place.  Raises SourceError for a decomposition that peft has not."""
    method = of.settings.get("decomposition_method", "relu")
    if method not in ("relu", "qr"):
        raise SourceError(f"{of.file / SETTINGS} has the decomposition {method!r}, which DEFT has not; fetch it")
    columns = prod(of.parts["deft_P"].shape[1:]) if "deft_P" in of.parts else 0
    alpha = of.number("alpha", 0.0, 0) if of.settings.get("alpha") else 0
    scale = alpha / columns if alpha and columns else 1.0
    alone = bool(of.settings.get("para"))
    yield of.by(without_subspace, across=of.across, orthogonal=method == "qr", alone=alone, scale=scale)


def peanut(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """The output of a network that reads the weight.  Raises SourceError for an activation that is not known here."""
    name = of.settings.get("act_fn", "relu")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise SourceError(f"{of.file} has PEANuT with the activation {name}, which is not merged: {BY_HAND}")
    depth = max(sum(part.startswith(f"peanut_{side}.") for part in of.parts) for side in ("encoders", "decoders"))
    scale = of.number("scaling", 1.0, float("-inf"))
    yield of.by(of_network, activation=_ACTIVATIONS[name], depth=depth, scale=scale)


def scaled_and_moved(weight: Tensor, parts: AdapterParts) -> Tensor:
    """GLoRA: W + W A + B, element by element.  Chavan et al. 2023, https://arxiv.org/abs/2306.07967"""
    factors, added = (_glora(parts, name, weight) for name in "AB")
    return weight + (weight * factors + added)


def moved_bias(bias: Tensor, parts: AdapterParts) -> Tensor:
    """GLoRA's bias: b + b D + E + W C."""
    factors, added = (_glora(parts, name, bias) for name in "DE")
    moved = bias * factors + added
    if any(part.startswith("glora_C.X") for part in parts):
        weight = parts["weight"].to(bias.dtype)
        moved = moved + (weight @ _glora(parts, "C", weight[0][:, None])).view(bias.shape)
    return bias + moved


def _glora(parts: AdapterParts, name: str, like: Tensor) -> Tensor:
    """One of GLoRA's tensors: a product, a number for each row, one number, or nothing.  Raises NoFit for others."""
    if parts.keys() & {f"glora_{name}.Xd", f"glora_{name}.Xu"}:
        found = parts[f"glora_{name}.Xd"] @ parts[f"glora_{name}.Xu"]
    elif f"glora_{name}.X" in parts:
        found = parts[f"glora_{name}.X"]
    else:
        return like.new_zeros(())
    if found.numel() != 1 and (found.shape[:1] != like.shape[:1] or found.dim() != like.dim()):
        raise NoFit(f"{name} of {list(found.shape)} for {list(like.shape)}")
    return found.view(()).to(like.dtype) if found.numel() == 1 else found.to(like.dtype)


def of_smaller_values(weight: Tensor, parts: AdapterParts) -> Tensor:
    """OSF: the smaller singular values and their vectors replaced.  https://arxiv.org/abs/2504.07097"""
    rows, sizes, columns = (parts[f"osf_svd_params.{name}_low"] for name in "USV")
    left, values, right = torch.linalg.svd(weight.float(), full_matrices=False)
    kept = len(values) - len(sizes)
    if kept < 0 or rows.shape[1:] != sizes.shape:
        raise NoFit(f"{len(sizes)} of {len(values)} singular values, with vectors of {list(rows.shape)}")
    left, values, right = (
        part.to(weight.dtype).to(rows.dtype) for part in (left[:, kept:], values[kept:], right[kept:])
    )
    return increased(weight, torch.mm(rows * sizes, columns) - torch.mm(left * values, right))


def without_subspace(
    weight: Tensor, parts: AdapterParts, *, across: bool, orthogonal: bool, alone: bool, scale: float
) -> Tensor:
    """DEFT: what a projection takes out of the weight replaced by rows that were trained; `alone`, by none: PaRa."""
    columns = parts["deft_P"].float()
    left = torch.linalg.qr(columns)[0] if orthogonal else columns
    right = left if orthogonal else torch.relu(columns)
    upright = (weight.t() if across else weight).float()
    removed = right.t() @ upright
    if not alone and parts["deft_R"].shape != removed.shape:
        raise NoFit(f"{list(parts['deft_R'].shape)} in place of {list(removed.shape)}")
    added = -(left @ removed) if alone else left @ (parts["deft_R"].float() * scale - removed)
    return increased(weight, (added.t() if across else added).to(weight.dtype))


def of_network(
    weight: Tensor, parts: AdapterParts, *, activation: Callable[[Tensor], Tensor], depth: int, scale: float
) -> Tensor:
    """PEANuT: a network of `depth` layers and as many back, each row of the weight's columns through it.

    Zhong et al. 2024, https://arxiv.org/abs/2410.01870
    """
    layers = [parts[f"peanut_{side}.{i}"] for side in ("encoders", "decoders") for i in range(depth)]
    if any(layer.shape != 2 * parts["peanut_A"].shape[:1] for layer in layers):
        raise NoFit("layers of other sizes")
    state = activation(weight.t().to(parts["peanut_A"].dtype) @ parts["peanut_A"].t())
    before = list[Tensor]()
    for encoder in layers[:depth]:
        before.append(state)
        state = activation(state @ encoder.t())
    for decoder in layers[depth:]:
        state = activation(state @ decoder.t()) + before.pop()
    added = (state @ parts["peanut_B"].t() * scale).t()
    return increased(weight, added.to(weight.dtype))


_GLORA = tuple(f"glora_{name}.{part}" for name in "ABCDE" for part in ("X", "Xd", "Xu", "zeros"))

FUNCTION_KINDS = {
    "GLORA": AdapterKind(glora, _GLORA),
    "OSF": AdapterKind(osf, tuple(f"osf_svd_params.{name}_low" for name in "USV")),
    "DEFT": AdapterKind(deft, ("deft_P", "deft_R")),
    "PEANUT": AdapterKind(peanut, ("peanut_A", "peanut_B", "peanut_encoders", "peanut_decoders")),
}
