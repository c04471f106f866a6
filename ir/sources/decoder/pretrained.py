"""The step of a transformers model: in which way it takes its cache is found by comparing logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, product
from typing import Any

import torch
from torch import nn

from ir.decoding import Decoding, Together
from ir.errors import SourceError
from ir.sources.decoder.agreement import Agreement, disagreement, generates_by_logits, random_weights, uncached
from ir.sources.decoder.caches.kept import KeptLayer, add_pools, kept_layers
from ir.sources.decoder.media import Media, MediaAgreement
from ir.sources.decoder.step import CacheUse, MadeStep, as_step
from ir.sources.decoder.terms import decoding_terms
from ir.sources.decoder.translator import translator_step
from ir.sources.examples.example_inputs import most_positions
from ir.sources.meta import parameters_on_meta

_WHOLE_BYTES = 1 << 28  # of weights in float32, up to which the whole model is compared
_CHECKED_BYTES = 3 << 29  # and up to which any is
_THIN = 128  # numbers a token, of a small model: about so many
_PAGE = 4  # tokens a page in a comparison


def pretrained_step(model: Any, max_length: int | None, page: int | None, media: Sequence[Media] = ()) -> MadeStep:
    """The step of a decoder of transformers: of the first kind whose logits are those without a cache.

    `media`: what may stand before a text.  Raises SourceError for another model.
    """
    _require_decoder(model)
    if model.config.is_encoder_decoder:
        return translator_step(model, _checked(model), max_length, page)
    terms = decoding_terms(model, max_length, page, most_positions(model, model.config))
    checked = _checked(model)
    try:
        layers = kept_layers(model, random_weights(model) if _float32_bytes(model) <= _CHECKED_BYTES else {})
    except SourceError as e:
        return _without_cache(model, checked, terms, str(e))
    if checked is None:
        note = f"{type(model).__name__} is too large to compare its cached logits with those without a cache"
        made = _with_cache(model, layers, _first_terms(layers, terms), CacheUse())
        return replace(made, notes=(note,), media=tuple(media))
    return _first_that_agrees(model, checked, layers, terms, media)


def _require_decoder(model: Any) -> None:
    if model.get_output_embeddings() is None or not model.can_generate():
        raise SourceError(
            f"{type(model).__name__} does not predict the next token of a text, which --generate asks for; compile it "
            "without --generate, for `stagecut run` or `serve`"
        )


def _with_cache(model: Any, layers: Sequence[KeptLayer], terms: Decoding, use: CacheUse) -> MadeStep:
    """The step of a model, and its terms with the names of its pools."""
    kind = import_module("ir.sources.decoder.caches.cached").CachedStep  # with transformers, which takes seconds
    step: Any = as_step(model, kind)
    step.page, step.use = terms.page, use
    step.layer_pools = add_pools(step, layers, terms.page)
    pools = list(chain.from_iterable(step.layer_pools))
    named = replace(
        terms,
        pools=tuple(pool.fqn for pool in pools if pool.table == "table"),
        window_pools=tuple(pool.fqn for pool in pools if pool.table == "window_table"),
        slot_pools=tuple(pool.fqn for pool in pools if pool.table == "slots"),
        window=terms.window if any(pool.table == "window_table" for pool in pools) else 0,
    )
    return MadeStep(step, named)


def _without_cache(model: Any, checked: Any, terms: Decoding, why: str) -> MadeStep:
    """The step that computes whole texts, and why it does.

    Raises SourceError where `generate` of the model reads more than the text: XLNet's asks for a token to come.
    """
    if checked is not None and not generates_by_logits(checked, random_weights(checked)):
        raise SourceError(
            f"{type(model).__name__} writes other tokens than its logits behind a text say, as its `generate` gives "
            f"forward more than the text, which stages do not; compile it without --generate"
        )
    note = f"no cache: each token computes its whole text anew, which is slow, as {why}"
    terms = replace(terms, window=0, together="equal", cached=False)
    return MadeStep(as_step(model, import_module("ir.sources.decoder.whole").WholeStep), terms, (note,))


_LIMITS = {
    "any": "",
    "even": "",
    "equal": "each step takes texts of one length alone",
    "alone": "each step takes one text alone",
}


def _first_terms(layers: Sequence[KeptLayer], terms: Decoding) -> Decoding:
    """The terms without limits, but for recurrences, which cannot skip padding."""
    recurs = any(kept.of_text for layer in layers for kept in layer.tensors)
    return replace(terms, together="even" if recurs else "any")


def _kinds(layers: Sequence[KeptLayer], terms: Decoding) -> Iterator[tuple[Decoding, CacheUse]]:
    """The ways to continue texts with a cache, the one with the least limits first.

    Some recurrences are right token by token alone.
    """
    first = _first_terms(layers, terms)
    chunks = (0, 1) if first.together == "even" else (0,)
    kinds: tuple[Together, ...] = (first.together, "equal", "alone")
    for together, chunk, flags in product(kinds, chunks, product((False, True), repeat=2)):
        yield replace(first, together=together, chunk=chunk), CacheUse(*flags)


def _first_that_agrees(
    model: Any, checked: Any, layers: Sequence[KeptLayer], terms: Decoding, media: Sequence[Media]
) -> MadeStep:
    """The step of `model` that gives the right logits where `checked`, a model of its class, has random weights."""
    weights = random_weights(checked)
    small = kept_layers(checked, weights)
    vocabulary = min(terms.vocabulary, checked.get_input_embeddings().weight.shape[0])
    whole = uncached(checked, weights)
    found: list[str] = []
    for kind, use in _kinds(layers, terms):
        made = _with_cache(checked, small, replace(kind, page=_PAGE), use)
        names = (*made.terms.pools, *made.terms.window_pools, *made.terms.slot_pools)
        agreement = Agreement(
            step=made.step,
            tables=made.terms.tables,
            pools={name: made.step.get_buffer(name).float() for name in names},
            page=_PAGE,
            window=made.terms.window,
            vocabulary=vocabulary,
            together=kind.together,
            chunk=kind.chunk or Agreement.chunk,
        )
        why_not = disagreement(partial(agreement.difference, weights, whole))
        if not why_not:
            limit = _LIMITS[kind.together]
            notes = (f"{limit}, as {found[0]}",) if limit else ()
            against = [(one, _against_media(made, agreement.pools, checked, model, one)) for one in media]
            notes += tuple(f"texts alone: with {', '.join(one.inputs)} {why}" for one, why in against if why)
            right = tuple(one for one, why in against if not why)
            return replace(_with_cache(model, layers, kind, use), notes=tuple(dict.fromkeys(notes)), media=right)
        found.append(why_not)
    return _without_cache(model, checked, terms, found[0])


def _against_media(made: MadeStep, pools: Mapping[str, torch.Tensor], checked: Any, model: Any, media: Media) -> str:
    """The reason for which `model` continues texts alone; empty where its step with media gives the right logits.

    A smaller model than that of the user is not asked, as it does not know the ids of media.
    """
    if made.terms.slot_pools:
        return "it would keep a state, which knows no first step"
    if checked is not model:
        return ""
    compared = MediaAgreement(made.step, made.terms.tables, pools, made.terms.page, media)
    return disagreement(partial(compared.difference, checked, random_weights(checked)))


def _checked(model: Any) -> Any:
    """The model, or one of its class with fewer layers and words; None where that is large, too."""
    if _float32_bytes(model) <= _WHOLE_BYTES:
        return model
    return next((m for m in _smaller_ones(model) if m is not None and _float32_bytes(m) <= _CHECKED_BYTES), None)


def _smaller_ones(model: Any) -> Iterator[Any]:
    """The models of the same class that may be compared in its place, the smallest first; None for one that is none."""
    yield _runs(_smaller(model, narrow=True, thin=True))
    yield _runs(_smaller(model, narrow=True))
    yield _smaller(model)
    yield model


def _runs(model: Any) -> Any:
    """The model; None where it does not run, as it has other sizes that go with those that were made smaller."""
    try:
        _ = model is None or kept_layers(model, {})
    except SourceError:
        return None
    return model


def _smaller(model: Any, narrow: bool = False, thin: bool = False) -> Any:
    """A model of the same class with a layer of each kind, two at least, and few words; None where there is none.

    `narrow`: also with few heads, of the same width, and a hidden size that goes with their number.
    `thin`: and with a small hidden size whatever their number, where the width of a head is a field of its own.
    """
    config = deepcopy(model.config)
    kinds = getattr(config, "layer_types", None) or ["all"] * 2
    count = max(2, 1 + max(map(kinds.index, set(kinds))))
    smaller = {"num_hidden_layers": count, "layer_types": kinds[:count], "vocab_size": 512}
    smaller |= {f"{word}_token_id": None for word in ("pad", "bos", "eos")}
    for name in ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner"):
        if isinstance(width := getattr(config, name, None), int):
            smaller[name] = min(width, 256)
    if narrow:
        sizes = {n: getattr(config, n, None) for n in ("hidden_size", "num_attention_heads", "num_key_value_heads")}
        factor = _common_factor(sizes.values())
        if factor == 1:
            return None
        smaller |= {name: size // factor for name, size in sizes.items() if isinstance(size, int)}
    if thin:
        hidden = smaller.get("hidden_size", 0)
        if hidden <= _THIN or not isinstance(getattr(config, "head_dim", None), int):
            return None
        smaller["hidden_size"] = hidden // (1 << (hidden // _THIN).bit_length() - 1)
    for name in smaller.keys() & vars(config).keys():
        setattr(config, name, smaller[name])
    try:
        with parameters_on_meta():
            return type(model)._from_config(config, dtype=torch.float32).eval()
    except Exception:  # of a configuration whose other fields go with these
        return None


def _common_factor(sizes: Iterable[Any]) -> int:
    """The largest power of two that divides all sizes and leaves two of each; 1 where one is not known."""
    known = list(sizes)
    if not all(isinstance(size, int) for size in known):
        return 1
    factors = (1 << i for i in range(6, 0, -1))
    return next((f for f in factors if all(size % f == 0 and size >= 2 * f for size in known)), 1)


def _float32_bytes(model: nn.Module) -> int:
    return 4 * sum(p.numel() for p in model.parameters())
