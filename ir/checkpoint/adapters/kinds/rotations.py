"""Kinds of adapters that turn or reflect a layer's inputs or outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from ir.checkpoint.adapters.layer import AdapterKind, LayerAdapter, LayerChange, require_rank
from ir.checkpoint.adapters.retrained import AdapterParts
from ir.checkpoint.adapters.settings import SETTINGS
from ir.checkpoint.quantized.transposed import lies_across
from ir.errors import SourceError


def hra(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Reflected inputs."""
    require_rank(of.file, of.settings, of.key, prod(of.parts["hra_u"].shape[1:]))
    yield of.by(reflected, orthogonal=bool(of.settings.get("apply_GS")))


def oft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Rotated inputs.  Raises SourceError for adapters of a peft that rotated them otherwise."""
    series = bool(of.settings.get("use_cayley_neumann", True))
    version = re.match(r"(\d+)\.(\d+)", str(of.settings.get("peft_version") or ""))
    if series and (version is None or (int(version[1]), int(version[2])) < (0, 18)):
        raise SourceError(
            f"{of.file} has an OFT adapter of peft before 0.18, where the series that rotates was another: merge it "
            "into the weights with that version"
        )
    terms = of.settings.get("num_cayley_neumann_terms", 5) if series else 0
    if series and (type(terms) is not int or terms < 1):
        raise SourceError(f"{of.file / SETTINGS} does not say how many terms of the series rotate; fetch it")
    most = of.settings.get("eps", 6e-5) if of.settings.get("coft") else 0.0
    shared = bool(of.settings.get("block_share"))
    table = isinstance(of.layer, nn.Embedding)
    yield of.by(rotated, terms=terms, most=most, shared=shared, across=lies_across(of.layer), table=table)


def boft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Inputs rotated one or several times.  Raises SourceError where the settings say another number."""
    factors = prod(of.parts["boft_R"].shape[:1]) if "boft_R" in of.parts else 0
    if factors not in (1, said := of.number("boft_n_butterfly_factor", 1)):  # peft without its kernels makes one
        raise SourceError(f"{of.file} rotates {of.path} {factors} times; its settings say {said}: fetch both again")
    yield of.by(rotated_by_butterflies)


def road(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Outputs turned in pairs.  Raises SourceError for a variant that is not known."""
    variant = of.settings.get("variant", "road_1")
    if variant not in ("road_1", "road_2", "road_4"):
        raise SourceError(f"{of.file / SETTINGS} has the variant {variant!r}, which RoAd has not; fetch it")
    half = of.number("group_size", 64, 2) // 2
    yield of.by(rotated_in_pairs, variant=variant, half=half)
    if getattr(of.layer, "bias", None) is not None:
        yield of.by(rotated_in_pairs, "bias", variant=variant, half=half)


def reflected(weight: Tensor, parts: AdapterParts, *, orthogonal: bool) -> Tensor:
    """HRA: the inputs reflected in a chain of planes.  Yuan et al. 2024, https://arxiv.org/abs/2405.17484

    `orthogonal`: whether the planes are made orthogonal to each other first.
    """
    normals = parts["hra_u"]
    whole = torch.eye(len(normals), dtype=normals.dtype, device=normals.device)
    if orthogonal:
        normals = _orthonormal(normals)
        whole = whole - 2 * normals @ normals.t()
    else:
        for normal in (normals / normals.norm(dim=0)).t():
            whole = whole - 2 * whole @ normal[:, None] @ normal[None]
    return (weight.flatten(1).to(whole.dtype) @ whole).view(weight.shape)


def _orthonormal(vectors: Tensor) -> Tensor:
    """The columns made orthonormal, one after the other, by Gram and Schmidt's process."""
    made = list[Tensor]()
    for vector in vectors.t():
        rest = vector[:, None]
        for before in made:
            rest = rest - (before.t() @ rest) * before
        made.append(rest / rest.norm())
    return torch.cat(made, dim=1)


def rotated(
    weight: Tensor, parts: AdapterParts, *, terms: int, most: float, shared: bool, across: bool, table: bool
) -> Tensor:
    """OFT: the inputs rotated in blocks.  Qiu et al. 2023, https://arxiv.org/abs/2306.07280

    The tensor has, for each block, the elements above the diagonal of a skew matrix, whose Cayley transform rotates:
    `terms` of its series, or 0 for the exact one.  `most`: the longest of these matrices in sum, where it is limited.
    `shared`: whether all blocks are rotated alike.  `table`: whether the weight is one of embeddings, whose rows are
    rotated, the other way.
    """
    above = parts["oft_R"]
    size = round((1 + (1 + 8 * above.shape[1]) ** 0.5) / 2)
    skew = above.new_zeros(len(above), size, size)
    rows, columns = torch.triu_indices(size, size, 1, device=above.device)
    skew[:, rows, columns] = above.view(len(above), len(rows))  # which raises for what is no triangle
    skew = skew - skew.mT
    if most:
        limit = most / len(above) ** 0.5
        lengths = skew.norm(dim=(1, 2), keepdim=True)
        skew = torch.where(lengths <= limit, skew, limit * (skew / lengths))
    inputs = weight if across else weight.flatten(1).t()
    blocks = _rotations(skew, terms)
    if shared:
        blocks = blocks.expand(len(inputs) // size, size, size)
    if table:
        return weight.to(skew.dtype) @ torch.block_diag(*blocks)
    turned = torch.block_diag(*blocks) @ inputs.to(skew.dtype)
    return turned if across else turned.t().reshape(weight.shape)


def _rotations(skew: Tensor, terms: int) -> Tensor:
    """The Cayley transforms of skew matrices S [blocks, size, size], exactly or by some terms of their series.

    As in peft, the exact one rotates the other way.
    """
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device).expand_as(skew)
    if not terms:
        return torch.linalg.solve(one + skew, one - skew, left=False)
    whole, power = one, one
    last = max(terms - 1, 3) if terms > 2 else terms - 1
    for i in range(1, last + 1):
        power = power @ skew
        whole = whole + power * (1 if i == last and terms > 2 else 2)
    return whole


def rotated_by_butterflies(weight: Tensor, parts: AdapterParts) -> Tensor:
    """BOFT: the inputs rotated in blocks, several times in other orders, and the outputs scaled.

    The tensor is [factors, blocks, size, size].  Liu et al. 2023, https://arxiv.org/abs/2311.06243
    """
    given = parts["boft_R"]
    factors, blocks, size, _ = given.shape
    skew = 0.5 * (given - given.mT)
    one = torch.eye(size, dtype=given.dtype, device=given.device).expand_as(skew)
    turns = torch.linalg.solve(one + skew, one - skew, left=False)
    whole: Tensor | None = None
    for i in range(factors):
        order = torch.arange(blocks * size, device=given.device)
        if factors > 1:  # halves of the blocks of a group: those of even places, then those of odd ones
            order = order.view(blocks // 2**i, -1, 2, size // 2).transpose(1, 2).flatten()
        turn = torch.block_diag(*turns[i])[order][:, order]
        whole = turn if whole is None else turn @ whole
    assert whole is not None
    turned = (whole @ weight.flatten(1).t().to(whole.dtype)).t()
    return (turned * parts["boft_s"].view(len(turned), 1)).view(weight.shape)


def rotated_in_pairs(weight: Tensor, parts: AdapterParts, *, variant: str, half: int) -> Tensor:
    """RoAd: pairs of outputs, `half` a group apart, rotated and scaled.  Liao et al. 2024, https://arxiv.org/abs/2409.00119

    The variants have an angle and a scale for each pair, for each output, or for each element of the rotations.
    """
    angles, scales = parts["road_theta"], parts["road_alpha"]
    if variant == "road_1":
        angles, scales = (t.view(-1, half).repeat_interleave(2, dim=0).flatten() for t in (angles, scales))
    if variant == "road_4":
        (angles, others), (scales, last) = (t.view(-1, 2, 2 * half).unbind(1) for t in (angles, scales))
    else:
        others, last = angles, scales
    own, crossed = (scales * angles.cos()).flatten(), (last * others.sin()).flatten()
    at = torch.arange(len(own), device=own.device)
    pair = at.view(-1, 2, half).flip(1).flatten()
    turn = torch.diag(own)
    turn[at, pair] = torch.where(at < pair, -crossed, crossed)
    return turn.to(weight.dtype) @ weight


ROTATION_KINDS = {
    "HRA": AdapterKind(hra, ("hra_u",)),
    "OFT": AdapterKind(oft, ("oft_R",)),
    "BOFT": AdapterKind(boft, ("boft_R", "boft_s")),
    "ROAD": AdapterKind(road, ("road_theta", "road_alpha")),
}
