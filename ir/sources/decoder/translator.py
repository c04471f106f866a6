"""The step of an encoder-decoder of transformers: what it keeps, and the rows that it takes at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ir.decoding import Decoding, Together
from ir.errors import SourceError
from ir.sources.decoder.agreement import Agreement, Whole, disagreement, random_weights, uncached
from ir.sources.decoder.caches.kept import KeptLayer, Pool, added, cache_after, kept_by
from ir.sources.decoder.step import MadeStep, as_step
from ir.sources.decoder.terms import decoding_terms
from ir.sources.examples.example_inputs import make_example, most_positions

_PAGE = 4  # tokens a page in a comparison
_SOURCES = (7, 3, 12, 12)  # tokens of the sources of a comparison


def translator_step(model: Any, checked: Any, max_length: int | None, page: int | None) -> MadeStep:
    """The step of an encoder-decoder.  `checked`: a model of its class that is small enough to compare logits.

    Raises SourceError where these are not those without a cache.
    """
    positions = most_positions(model, model.config)
    terms = decoding_terms(model, max_length, page, positions)
    example = _example_source(model)
    terms = replace(terms, chunk=1, begin=_begin(model), source=min(positions, terms.max_length))
    own, cross = _kept(model, example, random_weights(model) if checked is model else {})
    states = 0 if example.dim() == 2 else cross[1]
    if states:
        terms = replace(terms, source=states)
    kinds: tuple[Together, ...] = ("even", "equal", "alone")
    if checked is None:
        return _made(model, own, cross[0], replace(terms, together="equal"), states, example)
    weights = random_weights(checked)
    small, small_cross = _kept(checked, example, weights)
    whole = _masked(uncached(checked, weights))
    found: list[str] = []
    for kind in kinds:
        made = _made(checked, small, small_cross[0], replace(terms, page=_PAGE, together=kind), states, example)
        vocabulary = min(terms.vocabulary, checked.get_input_embeddings().weight.shape[0])
        agreement = Agreement(
            step=made.step,
            tables=("table",),
            pools={n: made.step.get_buffer(n).float() for n in (*made.terms.pools, *made.terms.source_pools)},
            page=_PAGE,
            window=0,
            vocabulary=vocabulary,
            together=kind,
            chunk=1,
            sources=_random_sources(example, vocabulary),
            states=states,
        )
        why_not = disagreement(partial(agreement.difference, weights, whole))
        if not why_not:
            return _made(model, own, cross[0], replace(terms, together=kind), states, example)
        found.append(why_not)
    raise SourceError(f"{type(model).__name__} cannot continue texts with a cache: {found[0]}")


def _masked(whole: Whole) -> Whole:
    """The logits of a model whose causal masks are always made, as its code looks ahead without them."""
    masks_always_made = import_module("ir.sources.decoder.caches.masks").masks_always_made

    def logits(text: Tensor, source: Tensor | None) -> Tensor:
        with masks_always_made():
            return whole(text, source)

    return logits


def _example_source(model: Any) -> Tensor:
    """The main input of the encoder, of one text."""
    given = make_example(model, model.config, Path(), padding=False).inputs
    return given[model.main_input_name][:1]


def _begin(model: Any) -> tuple[int, ...]:
    """The ids with which a text begins, that which is forced to follow included."""
    says = model.generation_config
    start = next((i for i in (says.decoder_start_token_id, says.bos_token_id, 0) if i is not None), 0)
    forced = [says.forced_bos_token_id] if says.forced_bos_token_id is not None else []
    return (*([start] if isinstance(start, int) else start), *forced)


def _kept(model: Any, example: Tensor, small: dict[str, Tensor]) -> tuple[Sequence[KeptLayer], tuple[Any, int]]:
    """The tensors that the decoder's layers keep of a text, and of a source; and the number of its states."""
    begin = torch.ones(1, 1, dtype=torch.int64)
    cache = cache_after(model, small, {model.main_input_name: example, "decoder_input_ids": begin})
    try:
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        return list(map(kept_by, own)), (list(map(kept_by, cross)), cross[0].keys.shape[2])
    except AttributeError as e:
        raise SourceError(f"{type(model).__name__} keeps no keys and values of its source in a cache") from e


def _made(model: Any, own: Any, cross: Any, terms: Decoding, states: int, example: Tensor) -> MadeStep:
    """The step, and its terms with the names of its pools."""
    step: Any = as_step(model, import_module("ir.sources.decoder.caches.sourced").SourcedStep)
    step.page, step.states, step.equal = terms.page, states, terms.together in ("equal", "alone")
    step.own_pools = tuple(_pools(step, i, layer, terms.page, 0) for i, layer in enumerate(own))
    step.cross_pools = tuple(_pools(step, i, layer, terms.page, -1) for i, layer in enumerate(cross))
    pools, source_pools = (tuple(p.fqn for p in chain(*found)) for found in (step.own_pools, step.cross_pools))
    return MadeStep(step, replace(terms, window=0, pools=pools, source_pools=source_pools), example=example)


def _pools(model: Any, index: int, layer: KeptLayer, page: int, which: int) -> tuple[Pool, ...]:
    """The pools of a layer of the decoder, in the first or the last of its modules that attend."""
    decoder = next(path for path, module in model.named_modules() if module is model.get_decoder())
    inside = [(path, m) for path, m in model.named_modules() if path.startswith(decoder)]
    owners: list[tuple[str, nn.Module]] = [found for found in inside if getattr(found[1], "layer_idx", None) == index]
    owner = owners[which] if len(owners) > 1 else ("", model)
    return tuple(added(index, replace(kept, name=_name(kept.name, which)), owner, page) for kept in layer.tensors)


def _name(name: str, which: int) -> str:
    return name if which == 0 else f"source_{name}"


def _random_sources(example: Tensor, vocabulary: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    if example.dim() > 2:
        return [torch.randn(example.shape[1:], generator=generator) for _ in _SOURCES]
    return [torch.randint(min(3, vocabulary - 1), vocabulary, (n,), generator=generator) for n in _SOURCES]
