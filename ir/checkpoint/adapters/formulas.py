"""The arithmetic by which each kind of adapter changes a weight, in the order in which peft computes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

AdapterParts: TypeAlias = Mapping[str, Tensor]


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


def singular(weight: Tensor, parts: AdapterParts, *, scale: float, across: bool) -> Tensor:
    """AdaLoRA: a product with singular values between its factors.  Zhang et al. 2023, https://arxiv.org/abs/2303.10512"""
    values = parts["lora_E"].view(parts["lora_B"].shape[1], 1)
    product = parts["lora_B"] @ (parts["lora_A"] * values) * scale
    return weight + (product.t() if across else product).reshape(weight.shape)


def of_hadamard(weight: Tensor, parts: AdapterParts, *, scale: float) -> Tensor:
    """LoHa: the elementwise product of two low-rank ones.  Hyeon-Woo et al. 2021, https://arxiv.org/abs/2108.06098"""
    one, other = (_rebuilt(parts, f"hada_t{i}", f"hada_w{i}_a", f"hada_w{i}_b") for i in (1, 2))
    return weight + (one * other * scale).reshape(weight.shape)


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


def scaled(weight: Tensor, parts: AdapterParts, *, dim: int) -> Tensor:
    """IA3: the slices of a dimension multiplied with a factor each.  Liu et al. 2022, https://arxiv.org/abs/2205.05638"""
    factors = parts["ia3_l"].flatten()
    return weight * factors.view([size if i == dim else 1 for i, size in enumerate(weight.shape)])


def of_shared(weight: Tensor, parts: AdapterParts, *, across: bool, sizes: tuple[int, int]) -> Tensor:
    """VeRA: two random matrices of all layers with vectors of this one.  Kopiczko et al. 2023, arxiv.org/abs/2310.11454

    `sizes`: the layer's outputs and inputs, of which the matrices may have more.
    """
    rows, columns = sizes
    up = parts["vera_lambda_b"][:, None] * parts["vera_B"][:rows]
    product = up @ (parts["vera_lambda_d"][:, None] * parts["vera_A"][:, :columns])
    return weight + (product.t() if across else product)


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


def rotated(weight: Tensor, parts: AdapterParts, *, terms: int, most: float, shared: bool, across: bool) -> Tensor:
    """OFT: the inputs rotated in blocks.  Qiu et al. 2023, https://arxiv.org/abs/2306.07280

    The tensor has, for each block, the elements above the diagonal of a skew matrix, whose Cayley transform rotates:
    `terms` of its series, or 0 for the exact one.  `most`: the longest of these matrices in sum, where it is limited.
    `shared`: whether all blocks are rotated alike.
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
