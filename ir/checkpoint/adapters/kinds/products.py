"""Kinds of adapters that add a product of other matrices than LoRA's two."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from ir.checkpoint.adapters.layer import AdapterKind, LayerAdapter, LayerChange, require_rank
from ir.checkpoint.adapters.retrained import AdapterParts, NoFit, increased
from ir.checkpoint.adapters.settings import NO_WEIGHTS
from ir.errors import SourceError


def loha(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(of_hadamard, scale=of.scale)


def lokr(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(of_kronecker, scale=of.scale)


def vera(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Vectors of a layer with random matrices.  Raises SourceError where these were not saved."""
    _require_random(of, "vera_A", "vera_B")
    yield of.by(of_shared, across=of.across)


def pvera(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """VeRA by the means of distributions.  Raises SourceError where values are drawn from these at each call."""
    _require_random(of, "pvera_A", "pvera_B")
    if of.settings.get("sample_at_inference"):
        raise SourceError(f"{of.file} has PVeRA that draws weights at each call (sample_at_inference): {NO_WEIGHTS}")
    yield of.by(of_means, across=of.across)


def unilora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Factors whose elements are shared numbers, scaled.  Raises SourceError where it was not saved which."""
    numbers = prod(of.parts["unilora_theta_d"].shape[:1]) if "unilora_theta_d" in of.parts else 0
    if not of.parts.keys() >= {"unilora_theta_d", *UNILORA_INDICES, "unilora_scales_A", "unilora_scales_B"}:
        raise SourceError(f"{of.file} does not say which numbers {of.path} has: save the adapter with save_indices")
    for name in UNILORA_INDICES:
        of.require_indices(name, numbers)
    require_rank(of.file, of.settings, of.key, prod(of.parts["unilora_indices_A"].shape[:1]))
    yield of.by(of_numbers, across=of.across)


def randlora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Sums of random matrices, scaled for this layer.  Raises SourceError where these were not saved."""
    _require_random(of, *_RANDOM)
    rank = prod(of.parts["randlora_lambda"].shape[:1]) if "randlora_lambda" in of.parts else 0
    require_rank(of.file, of.settings, of.key, rank)
    yield of.by(of_random_bases, scale=of.number("randlora_alpha", 640.0, 0) / rank, across=of.across)


def _require_random(of: LayerAdapter, *names: str) -> None:
    if not of.parts.keys() >= {*names}:
        raise SourceError(
            f"{of.file} lacks the random matrices {' and '.join(names)}, which peft makes anew without "
            "save_projection: save the adapter with that"
        )


def vblora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Factors put together of vectors that all layers share.  Raises SourceError for indices of others."""
    vectors = prod(of.parts["vblora_vector_bank"].shape[:1]) if "vblora_vector_bank" in of.parts else 0
    for name in VBLORA_INDICES:
        if name in of.parts:
            of.require_indices(name, vectors)
    yield of.by(of_vectors, count=of.number("topk", 2), across=of.across)


def gralora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Products of blocks, scaled by their rank and that of LoRA's beside them."""
    rank = prod(of.parts["gralora_A"].shape[2:]) if "gralora_A" in of.parts else 0
    require_rank(of.file, of.settings, of.key, rank)
    beside = of.number("hybrid_r", 0, 0)
    if beside != (found := prod(of.parts["gralora_A_general"].shape[:1]) if "gralora_A_general" in of.parts else 0):
        raise SourceError(f"{of.file} has LoRA of rank {found} beside GraLoRA for {of.path}; its settings say {beside}")
    yield of.by(of_granules, scale=of.number("alpha", 64.0, 0) / (rank + beside), across=of.across)


def delora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """A product of a bounded length."""
    rank = prod(of.parts["delora_A"].shape[:1]) if "delora_A" in of.parts else 0
    require_rank(of.file, of.settings, of.key, rank)
    yield of.by(of_bounded_length)


def hira(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(of_itself, across=of.across)


def of_hadamard(weight: Tensor, parts: AdapterParts, *, scale: float) -> Tensor:
    """LoHa: the elementwise product of two low-rank ones.  Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098"""
    one, other = (_rebuilt(parts, f"hada_t{i}", f"hada_w{i}_a", f"hada_w{i}_b") for i in (1, 2))
    return increased(weight, one * other * scale)


def of_kronecker(weight: Tensor, parts: AdapterParts, *, scale: float) -> Tensor:
    """LoKr: the Kronecker product of two matrices, each of which may be a product itself."""
    one, other = (
        parts[f"lokr_w{i}"] if f"lokr_w{i}" in parts else _rebuilt(parts, "lokr_t2", f"lokr_w{i}_a", f"lokr_w{i}_b")
        for i in (1, 2)
    )
    if other.dim() == 4:  # peft has no rule of its own for other convolutions
        one = one[..., None, None]
    return weight + (torch.kron(one, other.contiguous()) * scale).reshape(weight.shape)


def _rebuilt(parts: AdapterParts, core: str, first: str, second: str) -> Tensor:
    """The product of two matrices, or, for a convolution, of their rows with a core between them."""
    if core not in parts or first == "lokr_w1_a":
        return parts[first] @ parts[second]
    return torch.einsum("ijkl,ip,jr->prkl", parts[core], parts[first], parts[second])


def of_shared(weight: Tensor, parts: AdapterParts, *, across: bool) -> Tensor:
    """VeRA: two random matrices of all layers with vectors of this one.  Kopiczko et al. 2023, arxiv.org/abs/2310.11454

    The matrices may have more rows and columns than a layer has outputs and inputs.
    """
    rows, columns = reversed(weight.shape) if across else weight.shape
    if (*parts["vera_lambda_b"].shape, *parts["vera_lambda_d"].shape) != (rows, len(parts["vera_A"])):
        raise NoFit("vectors of another layer")
    up = parts["vera_lambda_b"][:, None] * parts["vera_B"][:rows]
    product = up @ (parts["vera_lambda_d"][:, None] * parts["vera_A"][:, :columns])
    return increased(weight, product.t() if across else product)


def of_means(weight: Tensor, parts: AdapterParts, *, across: bool) -> Tensor:
    """PVeRA: VeRA by the first halves of what are means and variances.  https://arxiv.org/abs/2512.07703"""
    half = len(parts["pvera_lambda_d"]) // 2
    if len(parts["pvera_A"]) != 2 * half:
        raise NoFit("means without variances")
    shared = {"vera_lambda_b": parts["pvera_lambda_b"], "vera_lambda_d": parts["pvera_lambda_d"][:half]}
    return of_shared(weight, {**shared, "vera_A": parts["pvera_A"][:half], "vera_B": parts["pvera_B"]}, across=across)


def of_numbers(weight: Tensor, parts: AdapterParts, *, across: bool) -> Tensor:
    """Uni-LoRA: a product of matrices of the elements of one vector.  Li et al. 2025, arxiv.org/abs/2506.00799"""
    shared = parts["unilora_theta_d"]
    sides = [(parts[f"unilora_indices_{side}"].long(), parts[f"unilora_scales_{side}"]) for side in "AB"]
    if any(places.shape != scales.shape for places, scales in sides):
        raise NoFit("scales of other numbers")
    down, up = (shared[places] * scales for places, scales in sides)
    return increased(weight, (up @ down).t() if across else up @ down)


def of_random_bases(weight: Tensor, parts: AdapterParts, *, scale: float, across: bool) -> Tensor:
    """RandLoRA: a sum of products of random matrices, each of which is scaled.

    Albert et al. 2025, https://arxiv.org/abs/2502.00987.  The larger of a layer's two sizes is that of the matrix that
    stays as it is.
    """
    outputs, inputs = reversed(weight.shape) if across else weight.shape
    values, factors = parts["randlora_lambda"], parts["randlora_gamma"]
    bases, small = values.shape[1], min(outputs, inputs)
    if parts["randlora_A"].shape[-1] < small:
        raise NoFit("matrices of smaller layers")
    fixed = parts["randlora_B"][: max(outputs, inputs), :bases].flatten(1)
    scaled = (values[:, :, None] * parts["randlora_A"][:, :bases, :small] * factors.view(1, bases, small)).flatten(
        end_dim=1
    )
    down, up = (scaled, fixed) if small == inputs else (fixed.t(), scaled.t())
    product = (down.t() @ up.t()).t()
    return increased(weight, ((product.t() if across else product) * scale).to(weight.dtype))


def of_vectors(weight: Tensor, parts: AdapterParts, *, count: int, across: bool) -> Tensor:
    """VB-LoRA: a product whose factors are mixtures of vectors, `count` for each piece.

    Li et al. 2024, https://arxiv.org/abs/2405.15179
    """
    bank = parts["vblora_vector_bank"]
    down, up = (_mixed(_logits(parts, f"vblora_logits_{side}", len(bank)), bank, count) for side in "AB")
    product = up.transpose(1, 2).reshape(-1, up.shape[1]) @ down.reshape(down.shape[0], -1)
    return increased(weight, product.t() if across else product)


def _mixed(logits: Tensor, bank: Tensor, count: int) -> Tensor:
    largest, places = logits.topk(count, dim=-1)
    return (largest.softmax(-1)[..., None] * bank[places]).sum(-2)


def _logits(parts: AdapterParts, name: str, vectors: int) -> Tensor:
    """The logits of all vectors, of which some adapters have the largest alone, and these but the last as weights."""
    if name in parts:
        return parts[name].unflatten(-1, (1, vectors))[..., 0, :]  # which raises for logits of other vectors
    most = parts[f"{name}_topk_weights"]
    whole = torch.cat([most, 1 - most.sum(-1, keepdim=True)], dim=-1)
    places = parts[f"{name}_topk_indices"].long()
    empty = whole.new_full((*whole.shape[:-1], vectors), float("-inf"))
    return empty.scatter(-1, places, torch.log(whole))


def of_granules(weight: Tensor, parts: AdapterParts, *, scale: float, across: bool) -> Tensor:
    """GraLoRA: a product for each of k x k blocks, with LoRA's own beside it.

    Jung et al. 2025, https://arxiv.org/abs/2505.20355
    """
    down, up = parts["gralora_A"], parts["gralora_B"]  # [k, inputs / k, rank], [k, rank, outputs / k]
    k, small, rank = down.shape
    if up.shape[:2] != (k, rank):
        raise NoFit("factors of other blocks or ranks")
    spread = down.new_zeros(k, small, k, rank)
    at = torch.arange(k, device=down.device)
    spread[at, :, at] = down  # each input has the factors of its own block alone
    mixed = spread.view(k * small, k, k, rank // k).permute(0, 2, 1, 3).reshape(k * small, k, rank)
    product = torch.einsum("ikr, kro -> iko", mixed, up).flatten(1).t()
    if "gralora_A_general" in parts:
        product = product + parts["gralora_B_general"] @ parts["gralora_A_general"]
    return increased(weight, (product.t() if across else product) * scale)


def of_bounded_length(weight: Tensor, parts: AdapterParts) -> Tensor:
    """DeLoRA: a product of normed vectors, times a bound and the lengths of the base's columns.

    Bini et al. 2025, https://arxiv.org/abs/2503.18225
    """
    down, up = parts["delora_A"], parts["delora_B"]
    lengths = down.norm(dim=1).clamp(min=1e-4) * up.norm(dim=0).clamp(min=1e-4)
    whole = up @ torch.diag_embed(parts["delora_lambda"] / down.shape[0] / lengths) @ down
    norms = parts["delora_w_norm"] if "delora_w_norm" in parts else torch.norm(weight, dim=0)
    return increased(weight, (whole * norms.view(1, weight.shape[1])).to(weight.dtype))


def of_itself(weight: Tensor, parts: AdapterParts, *, across: bool) -> Tensor:
    """HiRA: the weight times a product of low rank, element by element, added to it."""
    product = parts["hira_B"].flatten(1) @ parts["hira_A"].flatten(1)
    factors = (product.t() if across else product).to(weight.dtype)
    return increased(weight, weight * factors.reshape(weight.shape))


VBLORA_INDICES = ("vblora_logits_A_topk_indices", "vblora_logits_B_topk_indices")
UNILORA_INDICES = ("unilora_indices_A", "unilora_indices_B")
_RANDOM = ("randlora_A", "randlora_B")  # of all layers, which peft saves for each, too
_VBLORA = ("vblora_logits_A", "vblora_logits_B", "vblora_logits_A_topk_weights", "vblora_logits_B_topk_weights")

PRODUCT_KINDS = {
    "LOHA": AdapterKind(loha, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")),
    "LOKR": AdapterKind(lokr, ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")),
    "VERA": AdapterKind(vera, ("vera_lambda_b", "vera_lambda_d"), shared=("vera_A", "vera_B")),
    "PVERA": AdapterKind(pvera, ("pvera_lambda_b", "pvera_lambda_d"), shared=("pvera_A", "pvera_B")),
    "UNILORA": AdapterKind(
        unilora, ("unilora_scales_A", "unilora_scales_B"), shared=("unilora_theta_d",), indices=UNILORA_INDICES
    ),
    "RANDLORA": AdapterKind(randlora, ("randlora_lambda", "randlora_gamma", *_RANDOM), shared=_RANDOM),
    "VBLORA": AdapterKind(vblora, _VBLORA, shared=("vblora_vector_bank",), indices=VBLORA_INDICES),
    "GRALORA": AdapterKind(gralora, ("gralora_A", "gralora_B", "gralora_A_general", "gralora_B_general")),
    "DELORA": AdapterKind(delora, ("delora_A", "delora_B", "delora_lambda", "delora_w_norm")),
    "HIRA": AdapterKind(hira, ("hira_A", "hira_B")),
}
