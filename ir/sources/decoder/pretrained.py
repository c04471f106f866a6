"""The step of a transformers model: in which way it takes its cache is found by comparing logits."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, product
from typing import Any

import torch
from torch import nn

from ir.decoding import Decoding
from ir.errors import SourceError
from ir.sources.decoder.agreement import AGREES_WITHIN, Agreement, random_weights, uncached
from ir.sources.decoder.kept import KeptLayer, add_pools, kept_layers
from ir.sources.decoder.step import CacheUse, MadeStep, as_step
from ir.sources.decoder.terms import decoding_terms
from ir.sources.example_inputs import most_positions
from ir.sources.meta import parameters_on_meta

_WHOLE_BYTES = 1 << 28  # of weights in float32, up to which the whole model is compared
_CHECKED_BYTES = 3 << 29  # and up to which any is
_PAGE = 4  # tokens a page in a comparison


def pretrained_step(model: Any, max_length: int | None, page: int | None) -> MadeStep:
    """The step of a decoder of transformers.

    Raises SourceError for another model, and where cached logits are other than those without a cache.
    """
    _require_decoder(model)
    terms = decoding_terms(model, max_length, page, most_positions(model, model.config))
    layers = kept_layers(model, random_weights(model) if _float32_bytes(model) <= _CHECKED_BYTES else {})
    checked = _checked(model)
    if checked is None:
        note = f"{type(model).__name__} is too large to compare its cached logits with those without a cache"
        return replace(_with_cache(model, layers, terms, CacheUse()), notes=(note,))
    return _with_cache(model, layers, terms, _use(checked, terms))


def _require_decoder(model: Any) -> None:
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise SourceError(f"{name} reads its source with an encoder, which --generate lacks yet; compile it without")
    if model.get_output_embeddings() is None or not name.endswith(("ForCausalLM", "LMHeadModel")):
        raise SourceError(
            f"{name} does not predict the next token of a text, which --generate asks for; compile it without"
        )


def _with_cache(model: Any, layers: Sequence[KeptLayer], terms: Decoding, use: CacheUse) -> MadeStep:
    """The step of a model, and its terms with the names of its pools."""
    kind = import_module("ir.sources.decoder.cached").CachedStep  # with transformers, which takes seconds
    step: Any = as_step(model, kind)
    step.page, step.use = terms.page, use
    step.layer_pools = add_pools(step, layers, terms.page)
    pools = list(chain.from_iterable(step.layer_pools))
    named = replace(
        terms,
        pools=tuple(pool.fqn for pool in pools if not pool.sliding),
        window_pools=tuple(pool.fqn for pool in pools if pool.sliding),
        window=terms.window if any(pool.sliding for pool in pools) else 0,
    )
    return MadeStep(step, named)


def _use(model: Any, terms: Decoding) -> CacheUse:
    """The way in which a model takes its cache.  Raises SourceError where its logits are wrong in each."""
    weights = random_weights(model)
    layers = kept_layers(model, weights)
    found: list[str] = []
    for use in (CacheUse(*flags) for flags in product((False, True), repeat=2)):
        made = _with_cache(model, layers, replace(terms, page=_PAGE), use)
        pools = {name: made.step.get_buffer(name).float() for name in (*made.terms.pools, *made.terms.window_pools)}
        vocabulary = min(terms.vocabulary, model.get_input_embeddings().weight.shape[0])
        agreement = Agreement(made.step, made.terms.tables, pools, _PAGE, made.terms.window, vocabulary)
        try:
            difference = agreement.difference(weights, partial(uncached, model, weights))
        except Exception as e:  # of the model's own code, which has other ideas of a cache
            found.append(f"{type(e).__name__}: {e}".splitlines()[0])
            continue
        if difference <= AGREES_WITHIN:
            return use
        found.append(f"its logits with a cache differ by {difference:.1%} from those without")
    raise SourceError(f"{type(model).__name__} cannot continue texts of different lengths: {found[0]}")


def _checked(model: Any) -> Any:
    """The model, or one of its class with fewer layers and words; None where that is large, too."""
    if _float32_bytes(model) <= _WHOLE_BYTES:
        return model
    smaller = (_smaller(model), model)
    return next((m for m in smaller if m is not None and _float32_bytes(m) <= _CHECKED_BYTES), None)


def _smaller(model: Any) -> Any:
    """A model of the same class with a layer of each kind, two at least, and few words; None where there is none."""
    config = deepcopy(model.config)
    kinds = getattr(config, "layer_types", None) or ["all"] * 2
    count = max(2, 1 + max(map(kinds.index, set(kinds))))
    smaller = {"num_hidden_layers": count, "layer_types": kinds[:count], "vocab_size": 512}
    smaller |= {f"{word}_token_id": None for word in ("pad", "bos", "eos")}
    for name in ("intermediate_size", "moe_intermediate_size", "ffn_dim", "n_inner"):
        if isinstance(width := getattr(config, name, None), int):
            smaller[name] = min(width, 256)
    for name in smaller.keys() & vars(config).keys():
        setattr(config, name, smaller[name])
    try:
        with parameters_on_meta():
            return type(model)._from_config(config, dtype=torch.float32).eval()
    except Exception:  # of a configuration whose other fields go with these
        return None


def _float32_bytes(model: nn.Module) -> int:
    return 4 * sum(p.numel() for p in model.parameters())
