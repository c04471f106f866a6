"""LoRA and what is near it: products of two small matrices, with lengths, biases and single tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.layer import AdapterKind, LayerAdapter, LayerChange, require_rank
from ir.checkpoint.adapters.low_rank import Adapted, AdaptedExperts
from ir.checkpoint.adapters.retrained import AdapterParts, Retrained, increased
from ir.checkpoint.adapters.settings import NO_WEIGHTS, SETTINGS, names_end
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError

TOKENS = "trainable_tokens_delta"
"""The part of an adapter that holds rows of single tokens."""


def lora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Low-rank products, with the lengths of DoRA, a bias and single tokens."""
    if TOKENS in of.parts:
        yield from tokens(of)
    if not {"lora_A", "lora_B", "lora_magnitude_vector", "lora_B.bias"}.isdisjoint(of.parts):
        if of.settings.get("use_dora") or "lora_magnitude_vector" in of.parts:
            if "lora_A" in of.parts:
                require_rank(of.file, of.settings, of.key, prod(of.parts["lora_A"].shape[:1]))
            yield of.by(decomposed, of.attribute, scale=of.scale, across=of.across)
        elif of.settings.get("use_bdlora"):
            yield _of_blocks(of)
        else:
            yield of.attribute, partial(_product, of)
    if "lora_B.bias" in of.parts:
        yield of.by(biased, "bias", scale=of.scale)


def _product(of: LayerAdapter, base: Tensorlike) -> Adapted | AdaptedExperts:
    """A weight with a product added.  Raises SourceError where the factors do not fit it."""
    if not {"lora_A", "lora_B"} <= of.parts.keys():
        raise SourceError(f"{of.file} has one factor alone for {of.name} ({', '.join(of.parts)}); fetch it again")
    up, down = of.parts["lora_B"], of.parts["lora_A"]
    if getattr(of.layer, "groups", 1) != 1:
        raise SourceError(f"{of.file} adapts {of.name}, a convolution in groups, which is not merged: {NO_WEIGHTS}")
    if min(len(up.shape), len(down.shape)) < 2 or prod(up.shape[1:]) != down.shape[0]:
        raise SourceError(
            f"{of.file} adapts {of.name} by matrices of {list(up.shape)} and {list(down.shape)}, which have no "
            "product; fetch it again"
        )
    if of.attribute != "weight" and len(base.shape) == 3:
        whole = AdaptedExperts(base, up, down, of.scale, bool(getattr(of.layer, "is_transposed", False)))
        fits = whole.product_shape == whole.shape and down.shape[0] % whole.shape[0] == 0
    else:
        whole = Adapted(base, up, down, of.scale, of.across, rounded=isinstance(of.layer, nn.Embedding))
        fits = prod(whole.product_shape) == prod(whole.shape) and whole.product_shape[0] == whole.shape[0]
    if not fits:
        raise SourceError(f"{of.file} adapts {of.name} of {list(whole.product_shape)}; it is {list(whole.shape)}")
    experts = base.shape[0] if isinstance(whole, AdaptedExperts) else 1
    require_rank(of.file, of.settings, of.key, down.shape[0] // experts)
    return whole


def _of_blocks(of: LayerAdapter) -> tuple[str, LayerChange]:
    """The change of BD-LoRA, one of whose factors is blocks of a diagonal.  Raises SourceError."""
    given, leaf = of.settings["use_bdlora"], of.path.rpartition(".")[2]
    blocks = given.get("nblocks") if isinstance(given, Mapping) else None
    if type(blocks) is not int or blocks < 1:
        raise SourceError(f"{of.file / SETTINGS} does not say into how many blocks BD-LoRA divides; fetch it")
    named = {side: given.get(f"target_modules_bd_{side.lower()}") for side in "AB"}
    lists = ((side, names) for side, names in named.items() if isinstance(names, list))
    side = next((side for side, names in lists if any(str(name) in leaf for name in names)), "")
    if "lora_A" in of.parts:
        require_rank(of.file, of.settings, of.key, prod(of.parts["lora_A"].shape[:1]))
    return of.by(of_diagonal, scale=of.scale, across=of.across, blocks=blocks, side=side)


def tokens(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Rows of single tokens.  Raises SourceError where the settings do not say which."""
    given = of.settings.get("trainable_token_indices") or of.settings.get("token_indices")
    if isinstance(given, Mapping):
        given = next((ids for name, ids in given.items() if names_end([name], of.path)), None) or (
            next(iter(given.values())) if len(given) == 1 else None  # a head that is the embeddings, too
        )
    rows = prod(of.parts[TOKENS].shape[:1])
    if not isinstance(given, list) or len(given) != rows or not all(type(i) is int and i >= 0 for i in given):
        raise SourceError(f"{of.file / SETTINGS} does not say which {rows} tokens of {of.path} were trained; fetch it")

    def change(base: Tensorlike) -> Retrained:
        if max(given, default=0) >= base.shape[0]:
            raise SourceError(
                f"{of.file} was trained on token {max(given)}, and {of.name} has {base.shape[0]}; is it its base?"
            )
        return of.retrained(partial(with_tokens, tokens=given), base)

    yield "weight", change


def adalora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """A product with singular values, scaled by the rank at the beginning, which peft does not change."""
    alpha, first = of.settings.get("lora_alpha", 8), of.settings.get("init_r", 12)
    if not all(isinstance(x, int | float) for x in (alpha, first)):
        raise SourceError(f"{of.file / SETTINGS} gives no scale (init_r, lora_alpha); fetch it")
    rank = prod(of.parts["lora_A"].shape[:1]) if "lora_A" in of.parts else 0
    yield of.by(singular, scale=alpha if alpha > 0 else float(rank), rank=float(first), across=of.across)


def decomposed(weight: Tensor, parts: AdapterParts, *, scale: float, across: bool) -> Tensor:
    """DoRA: W + s B A with rows of the lengths that were trained.  `across`: whether rows lie in the last dimension.

    Liu et al. 2024, https://arxiv.org/abs/2402.09353
    """
    product = parts["lora_B"].flatten(1) @ parts["lora_A"].flatten(1)
    whole = weight + (product.t() if across else product.view(weight.shape)) * scale
    lengths = torch.linalg.vector_norm(whole, dim=0 if across else [*range(1, whole.dim())], keepdim=True)
    return parts["lora_magnitude_vector"].view(lengths.shape) / lengths * whole


def biased(bias: Tensor, parts: AdapterParts, *, scale: float) -> Tensor:
    """LoRA's own bias, added to the layer's."""
    return bias + parts["lora_B.bias"].view(bias.shape) * scale


def with_tokens(weight: Tensor, parts: AdapterParts, *, tokens: Sequence[int]) -> Tensor:
    """The rows of some tokens replaced."""
    rows = parts["trainable_tokens_delta"].to(weight.dtype)
    return weight.index_copy(0, torch.tensor(tokens, device=weight.device), rows)


def of_diagonal(weight: Tensor, parts: AdapterParts, *, scale: float, across: bool, blocks: int, side: str) -> Tensor:
    """BD-LoRA: a product one of whose factors, "A" or "B", is `blocks` of a diagonal; it is rounded, and added."""
    up, down = parts["lora_B"], parts["lora_A"]
    up = torch.block_diag(*up.chunk(blocks)) if side == "B" else up
    down = torch.block_diag(*down.chunk(blocks)) if side == "A" else down
    product = up @ down
    return increased(weight, ((product.t() if across else product) * scale).to(weight.dtype))


def singular(weight: Tensor, parts: AdapterParts, *, scale: float, rank: float, across: bool) -> Tensor:
    """AdaLoRA: a product with singular values between its factors, divided by a rank, which peft holds in a tensor.

    Zhang et al. 2023, https://arxiv.org/abs/2303.10512
    """
    values = parts["lora_E"].view(parts["lora_B"].shape[1], 1)
    product = parts["lora_B"] @ (parts["lora_A"] * values) * scale / (values.new_tensor(rank) + 1e-5)
    return increased(weight, product.t() if across else product)


LORA_KINDS = {
    "LORA": AdapterKind(lora, ("lora_A", "lora_B", "lora_magnitude_vector", TOKENS)),
    "ADALORA": AdapterKind(adalora, ("lora_A", "lora_B", "lora_E")),
    "TRAINABLE_TOKENS": AdapterKind(tokens, (TOKENS,)),
}
