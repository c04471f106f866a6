"""Kinds of adapters: the changes that each makes to a layer's tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod, sqrt
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from ir.checkpoint.adapters import formulas
from ir.checkpoint.adapters.low_rank import Adapted, AdaptedExperts
from ir.checkpoint.adapters.retrained import Retrained, WeightFormula
from ir.checkpoint.adapters.settings import NO_WEIGHTS, SETTINGS, names_end, of_pattern
from ir.checkpoint.quantized.transposed import lies_across
from ir.checkpoint.tensors import Tensorlike
from ir.errors import SourceError

LayerChange: TypeAlias = Callable[[Tensorlike], Tensorlike]
"""The changed tensor, from the base's."""


@dataclass(frozen=True, eq=False)
class LayerAdapter:
    """The tensors of an adapter for one layer.

    `attribute`: the layer's parameter that they are for; "weight", unless the adapter names parameters.
    """

    file: Path  # the adapter's folder, for errors
    settings: Mapping[str, Any]
    path: str
    layer: nn.Module
    parts: Mapping[str, Tensorlike]
    attribute: str = "weight"

    @property
    def name(self) -> str:
        """The name of the tensor that is adapted."""
        return f"{self.path}.{self.attribute}"

    @property
    def across(self) -> bool:
        """Whether the weight is [columns, rows], as those of embeddings are for peft."""
        upright = isinstance(self.layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        turned = bool(self.settings.get("fan_in_fan_out")) and not upright
        return lies_across(self.layer) or turned or isinstance(self.layer, nn.Embedding)

    @property
    def key(self) -> str:
        """The path that patterns of settings are for."""
        return self.path if self.attribute == "weight" else self.name

    @cached_property
    def scale(self) -> float:
        """The factor of what is added.  Raises SourceError where the settings do not give one."""
        return scale_of(self.file, self.settings, self.key)

    def retrained(self, formula: WeightFormula, base: Tensorlike) -> Retrained:
        """A changed tensor.  Raises SourceError where the adapter's do not fit it."""
        whole = Retrained(base, self.parts, formula)
        held = ", ".join(f"{name} {list(part.shape)}" for name, part in self.parts.items())
        try:
            fits = whole.shape_made() == tuple(base.shape)
        except (KeyError, RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
            fits = False
        if not fits:
            raise SourceError(
                f"{self.file} adapts {self.name} of {list(base.shape)} by {held}, which do not fit it; fetch it again"
            )
        return whole


def require_rank(file: Path, settings: Mapping[str, Any], path: str, found: int) -> None:
    """Raise SourceError where a module's factors have another rank than the settings, by which they are scaled."""
    if found != (said := of_pattern(settings.get("rank_pattern"), path, settings.get("r", 8))):
        raise SourceError(f"{file} has factors of rank {found} for {path}; its settings say {said}: fetch both again")


def scale_of(file: Path, settings: Mapping[str, Any], path: str) -> float:
    """The factor of what an adapter adds to a module.  Raises SourceError where the settings do not give one."""
    key = "alpha" if settings.get("peft_type") in ("LOHA", "LOKR") else "lora_alpha"
    try:
        rank = of_pattern(settings.get("rank_pattern"), path, settings.get("r", 8))
        alpha = of_pattern(settings.get("alpha_pattern"), path, settings.get(key, 8))
        return alpha / sqrt(rank) if settings.get("use_rslora") else alpha / rank
    except (TypeError, ValueError, ArithmeticError, AttributeError, re.error) as e:
        raise SourceError(
            f"{file / SETTINGS} gives {path} no scale (r, {key} and their patterns): {e}; fetch it"
        ) from e


def lora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Low-rank products, with the lengths of DoRA, a bias and single tokens."""
    if _TOKENS in of.parts:
        yield from tokens(of)
    if not {"lora_A", "lora_B", "lora_magnitude_vector", "lora_B.bias"}.isdisjoint(of.parts):
        if of.settings.get("use_dora") or "lora_magnitude_vector" in of.parts:
            formula = partial(formulas.decomposed, scale=of.scale, across=of.across)
            if "lora_A" in of.parts:
                require_rank(of.file, of.settings, of.key, prod(of.parts["lora_A"].shape[:1]))
            yield of.attribute, partial(of.retrained, formula)
        else:
            yield of.attribute, partial(_product, of)
    if "lora_B.bias" in of.parts:
        yield "bias", partial(of.retrained, partial(formulas.biased, scale=of.scale))


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


_TOKENS = "trainable_tokens_delta"


def tokens(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Rows of single tokens.  Raises SourceError where the settings do not say which."""
    given = of.settings.get("trainable_token_indices") or of.settings.get("token_indices")
    if isinstance(given, Mapping):
        given = next((ids for name, ids in given.items() if names_end([name], of.path)), None) or (
            next(iter(given.values())) if len(given) == 1 else None  # a head that is the embeddings, too
        )
    rows = prod(of.parts[_TOKENS].shape[:1])
    if not isinstance(given, list) or len(given) != rows or not all(type(i) is int and i >= 0 for i in given):
        raise SourceError(f"{of.file / SETTINGS} does not say which {rows} tokens of {of.path} were trained; fetch it")

    def change(base: Tensorlike) -> Retrained:
        if max(given, default=0) >= base.shape[0]:
            raise SourceError(
                f"{of.file} was trained on token {max(given)}, and {of.name} has {base.shape[0]}; is it its base?"
            )
        return of.retrained(partial(formulas.with_tokens, tokens=given), base)

    yield "weight", change


def adalora(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """A product with singular values, scaled by the rank at the beginning, which peft does not change."""
    alpha, first = of.settings.get("lora_alpha", 8), of.settings.get("init_r", 12)
    if not all(isinstance(x, int | float) for x in (alpha, first)):
        raise SourceError(f"{of.file / SETTINGS} gives no scale (init_r, lora_alpha); fetch it")
    rank = prod(of.parts["lora_A"].shape[:1]) if "lora_A" in of.parts else 0
    scale = (alpha if alpha > 0 else float(rank)) / (first + 1e-5)
    yield "weight", partial(of.retrained, partial(formulas.singular, scale=scale, across=of.across))


def loha(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield "weight", partial(of.retrained, partial(formulas.of_hadamard, scale=of.scale))


def lokr(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    yield "weight", partial(of.retrained, partial(formulas.of_kronecker, scale=of.scale))


def ia3(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Factors of the outputs, or in feed-forward modules of the inputs."""
    named = of.settings.get("feedforward_modules") or []
    inner = re.fullmatch(named, of.path) if isinstance(named, str) else any(map(of.path.endswith, named))
    dim = int(bool(inner))
    yield "weight", partial(of.retrained, partial(formulas.scaled, dim=1 - dim if of.across else dim))
    if not inner and getattr(of.layer, "bias", None) is not None:
        yield "bias", partial(of.retrained, partial(formulas.scaled, dim=0))


def vera(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Vectors of a layer with random matrices.  Raises SourceError where these were not saved."""
    if not {"vera_A", "vera_B"} <= of.parts.keys():
        raise SourceError(
            f"{of.file} lacks the random matrices vera_A and vera_B, which peft makes anew without save_projection: "
            "save the adapter with that"
        )

    def change(base: Tensorlike) -> Retrained:
        rows, columns = reversed(base.shape[-2:]) if of.across else base.shape[-2:]
        return of.retrained(partial(formulas.of_shared, across=of.across, sizes=(rows, columns)), base)

    yield "weight", change


def hra(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Reflected inputs."""
    require_rank(of.file, of.settings, of.key, prod(of.parts["hra_u"].shape[1:]))
    yield "weight", partial(of.retrained, partial(formulas.reflected, orthogonal=bool(of.settings.get("apply_GS"))))


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
    across, shared = lies_across(of.layer), bool(of.settings.get("block_share"))
    formula = partial(formulas.rotated, terms=terms, most=most, shared=shared, across=across)
    yield "weight", partial(of.retrained, formula)


def whole(of: LayerAdapter) -> Iterator[tuple[str, LayerChange]]:
    """Nothing beside the tensors that replace the model's."""
    return iter(())


KINDS: Mapping[str, Callable[[LayerAdapter], Iterator[tuple[str, LayerChange]]]] = {
    "LORA": lora,
    "ADALORA": adalora,
    "LOHA": loha,
    "LOKR": lokr,
    "IA3": ia3,
    "VERA": vera,
    "HRA": hra,
    "OFT": oft,
    "LN_TUNING": whole,
    "TRAINABLE_TOKENS": tokens,
}
"""By peft's name of a kind, the changes of a layer's tensors, by the attribute of each."""

PARTS = (
    *("lora_A", "lora_B", "lora_E", "lora_magnitude_vector", _TOKENS),
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    *("ia3_l", "vera_lambda_b", "vera_lambda_d", "hra_u", "oft_R"),
)
"""The names of the tensors of a layer."""
