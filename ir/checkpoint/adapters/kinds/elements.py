"""Kinds of adapters that change elements, rows or columns, or all of them by a few numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod, sqrt

import torch
from torch import Tensor, fft, nn

from ir.checkpoint.adapters.layer import AdapterKind, LayerAdapter, LayerChange, require_rank, scale_of
from ir.checkpoint.adapters.retrained import AdapterParts, NoFit, Retrained, increased
from ir.checkpoint.adapters.settings import BY_HAND
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError


def ia3(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Factors of the outputs, or in feed-forward modules of the inputs."""
    named = of.settings.get("feedforward_modules") or []
    inner = re.fullmatch(named, of.path) if isinstance(named, str) else any(map(of.path.endswith, named))
    dim = int(bool(inner))
    yield of.by(scaled, dim=1 - dim if of.across else dim)
    if not inner and getattr(of.layer, "bias", None) is not None:
        yield of.by(scaled, "bias", dim=0)


def beft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(with_bias, "bias")


def shira(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Single elements.  Raises SourceError for indices of others than the weight has."""

    def change(base: Tensorlike) -> Retrained:
        for i, size in enumerate(base.shape):
            of.require_indices("shira_indices", size, i)
        return of.retrained(with_elements, base)

    yield "weight", change


def miss(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Blocks that are repeated over the columns, and with `mini` over the rows, too; with `bat`, multiplied as well."""
    form = of.settings.get("init_weights", True)
    sizes = of.parts["miss_block"].shape
    require_rank(of.file, of.settings, of.key, prod(sizes[-1:] if form == "bat" else sizes[:1]))
    if form == "bat":
        yield of.by(with_products_of_blocks)
    else:
        yield of.by(with_repeated_blocks, rows=of.number("mini_r", 1) if form == "mini" else 0)


def fourierft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """The transform of a few coefficients.  Raises SourceError where the settings say another number of them."""
    found, pattern = prod(of.parts["fourierft_spectrum"].shape), of.settings.get("n_frequency_pattern")
    said = [of.number("n_frequency", 1000), *(pattern.values() if isinstance(pattern, Mapping) else ())]
    if found not in said:
        raise SourceError(f"{of.file} has {found} coefficients for {of.path}; its settings say {said[0]}")
    scale, seed = of.number("scaling", 150.0, float("-inf")), of.number("random_loc_seed", 777, 0)
    yield of.by(of_spectrum, scale=scale, seed=seed, across=of.across)


def waveft(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """The wavelets of a few coefficients, or these themselves.

    Raises SourceError where the settings say another number of them, and for other wavelets than Haar's.
    """
    found, pattern = prod(of.parts["waveft_spectrum"].shape), of.settings.get("n_frequency_pattern")
    said = [of.number("n_frequency", 2592), *(pattern.values() if isinstance(pattern, Mapping) else ())]
    if found not in said and not of.settings.get("proportional_parameters"):
        raise SourceError(f"{of.file} has {found} coefficients of wavelets for {of.path}; its settings say {said[0]}")
    waves, family = of.settings.get("use_idwt", True), of.settings.get("wavelet_family", "db1")
    if waves and family not in ("db1", "haar"):
        raise SourceError(f"{of.file} has WaveFT with the wavelets {family}, which is merged with db1 alone: {BY_HAND}")
    scale, seed = of.number("scaling", 25.0, float("-inf")), of.number("random_loc_seed", 777, 0)
    yield of.by(of_wavelets, scale=scale, seed=seed, waves=bool(waves), across=of.across)


def supertuning(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Single elements, with LoRA beside them.  Raises SourceError where it was not saved which."""
    if "supertuning_indices" not in of.parts:
        raise SourceError(
            f"{of.file} does not say which elements of {of.name} it changes: save it with save_precomputed_indices"
        )
    scale = 0.0
    if "supertuning_lora_A" in of.parts:
        require_rank(of.file, of.settings, of.key, prod(of.parts["supertuning_lora_A"].shape[:1]))
        scale = scale_of(of.file, of.settings, of.key)

    def change(base: Tensorlike) -> Retrained:
        of.require_indices("supertuning_indices", prod(base.shape))
        return of.retrained(partial(with_places, scale=scale), base)

    yield "weight", change


def c3a(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield of.by(of_circulants)


def whole(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Nothing beside the tensors that replace the model's."""
    return iter(())


def scaled(weight: Tensor, parts: AdapterParts, *, dim: int) -> Tensor:
    """IA3: the slices of a dimension multiplied with a factor each.  Liu et al. 2022, https://arxiv.org/abs/2205.05638"""
    factors = parts["ia3_l"].flatten()
    return weight * factors.view([size if i == dim else 1 for i, size in enumerate(weight.shape)])


def with_bias(bias: Tensor, parts: AdapterParts) -> Tensor:
    """BEFT: what is added to a bias.  https://arxiv.org/abs/2509.15974"""
    return bias + parts["beft_bias"].view(bias.shape)


def with_elements(weight: Tensor, parts: AdapterParts) -> Tensor:
    """SHiRA: what is added to single elements.  Bhardwaj et al. 2024, https://arxiv.org/abs/2406.13175"""
    rows, columns = parts["shira_indices"].long()
    added = parts["shira_weight"].new_zeros(weight.shape)
    return weight + added.index_put((rows, columns), parts["shira_weight"].view(rows.shape), accumulate=True)


def with_repeated_blocks(weight: Tensor, parts: AdapterParts, *, rows: int) -> Tensor:
    """MiSS: a block added to each piece of the columns.  Kang and Yin 2024, https://arxiv.org/abs/2409.15371

    `rows`: after how many rows it is repeated; 0 for one that has all of them.
    """
    block = parts["miss_block"]  # [columns of a piece, rows]
    if rows:
        block = block.repeat(1, weight.shape[0] // rows)
    pieces = -(-weight.shape[1] // len(block))
    return increased(weight, block.t().repeat(1, pieces)[:, : weight.shape[1]])


def with_products_of_blocks(weight: Tensor, parts: AdapterParts) -> Tensor:
    """MiSS with `bat`: each block W of the weight becomes W + W B + B, with a B for each block of rows."""
    block = parts["miss_block"]
    many, size, _ = block.shape
    pieces = weight.to(block.dtype).view(many, size, weight.shape[1] // size, size).permute(2, 0, 1, 3)
    added = (pieces @ block + block).permute(1, 2, 0, 3)
    return increased(weight, added.reshape(weight.shape))


def of_spectrum(weight: Tensor, parts: AdapterParts, *, scale: float, seed: int, across: bool) -> Tensor:
    """FourierFT: the inverse transform of a few coefficients, at places drawn by `seed`.

    Gao et al. 2024, https://arxiv.org/abs/2405.03003
    """
    rows, columns = reversed(weight.shape) if across else weight.shape
    given = parts["fourierft_spectrum"].flatten()
    drawn = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed))[: len(given)]
    places = drawn.to(given.device)
    spectrum = torch.zeros(rows, columns, device=given.device)
    spectrum = spectrum.index_put((places // columns, places % columns), given.float().view(len(places)))
    added = (fft.ifft2(spectrum).real * scale).to(given.dtype)
    return increased(weight, added.t() if across else added)


def of_wavelets(weight: Tensor, parts: AdapterParts, *, scale: float, seed: int, waves: bool, across: bool) -> Tensor:
    """WaveFT: a few coefficients at places drawn by `seed`, or with `waves` what Haar's wavelets of them add up to.

    Bilican et al. 2025, https://arxiv.org/abs/2505.12532
    """
    rows, columns = reversed(weight.shape) if across else weight.shape
    given = parts["waveft_spectrum"].flatten()
    places = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed))[: len(given)]
    places = places.to(given.device)
    even = (rows + rows % 2, columns + columns % 2) if waves else (rows, columns)
    added = torch.zeros(even, device=given.device, dtype=given.dtype)
    added = added.index_put((places // columns, places % columns), given.view(len(places)))
    if waves:
        quarters = torch.stack([part for half in added.chunk(2) for part in half.chunk(2, dim=1)])[None]
        low, high = given.new_tensor([sqrt(0.5), sqrt(0.5)]), given.new_tensor([sqrt(0.5), -sqrt(0.5)])
        filters = torch.stack([torch.outer(a, b) for a, b in ((low, low), (high, low), (low, high), (high, high))])
        added = nn.functional.conv_transpose2d(quarters, filters[:, None], stride=2)[0, 0]
    added = (added * scale)[:rows, :columns]
    return increased(weight, added.t() if across else added)


def with_places(weight: Tensor, parts: AdapterParts, *, scale: float) -> Tensor:
    """Super: what is added to single elements, by their numbers in the flat weight; Supra: and a product of LoRA."""
    places, values = parts["supertuning_indices"].long(), parts["supertuning_values"].to(weight.dtype)
    if places.shape != values.shape:
        raise NoFit(f"{list(values.shape)} values at {list(places.shape)} places")
    sums = weight.flatten().scatter_add(0, places, values).view(weight.shape)
    if parts.keys() & {"supertuning_lora_A", "supertuning_lora_B"}:
        product = scale * (parts["supertuning_lora_B"] @ parts["supertuning_lora_A"])
        sums = increased(sums, product.to(weight.dtype))
    return sums


def of_circulants(weight: Tensor, parts: AdapterParts) -> Tensor:
    """C3A: blocks in which each row is the one before, moved by one.  Chen et al. 2024, https://arxiv.org/abs/2407.19342"""
    kernel = parts["c3a_kernel"].float()
    _, many, size = kernel.shape
    one = torch.eye(many * size, device=kernel.device).view(-1, many, size)
    turned = torch.einsum("...nb,mnb->...mb", fft.ifft(one), fft.fft(kernel))
    added = fft.fft(turned).real.flatten(start_dim=1).t()
    return increased(weight, added.to(weight.dtype) / weight.shape[-1])


ELEMENT_KINDS = {
    "IA3": AdapterKind(ia3, ("ia3_l",)),
    "BEFT": AdapterKind(beft, ("beft_bias",)),
    "SHIRA": AdapterKind(shira, ("shira_weight",), indices=("shira_indices",)),
    "MISS": AdapterKind(miss, ("miss_block",)),
    "FOURIERFT": AdapterKind(fourierft, ("fourierft_spectrum",)),
    "WAVEFT": AdapterKind(waveft, ("waveft_spectrum",)),
    "SUPERTUNING": AdapterKind(
        supertuning,
        ("supertuning_values", "supertuning_lora_A", "supertuning_lora_B"),
        indices=("supertuning_indices",),
    ),
    "C3A": AdapterKind(c3a, ("c3a_kernel",)),
    "LN_TUNING": AdapterKind(whole),
}
