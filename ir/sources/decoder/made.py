"""From the source of a decoder to the source of its step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from ir.checkpoint.adapters.kept import CHOICE
from ir.checkpoint.transformers import is_pretrained
from ir.decoding import Decoding
from ir.errors import SourceError
from ir.sources.decoder.caches.kept import CAPTURED_PAGES
from ir.sources.decoder.media import Media, media_of
from ir.sources.decoder.own import own_step
from ir.sources.decoder.pretrained import pretrained_step
from ir.sources.decoder.step import MadeStep, example_call
from ir.sources.decoder.terms import not_followed
from ir.sources.source import Source, Variant

_BATCH, _SEQ, _PAGES = 2, 6, 2  # of the example


def step_of(source: Source, max_length: int | None = None, page: int | None = None) -> Source:
    """The source of a decoder's step, which takes the arguments of `DecoderStep.forward` and keeps its texts in pools.

    `max_length`: tokens of a text, prompt included; `page`: tokens a page.
    Raises SourceError for what is no decoder.
    """
    model: Any = source.model
    if is_pretrained(model):
        media, why_not = media_of(source) if not model.config.is_encoder_decoder else ((), "")
        made = pretrained_step(source.model, max_length, page, media)
        more = (*not_followed(source.model), *([f"texts alone: {why_not}"] if why_not else []))
    else:
        made, more, why_not = own_step(source.model, max_length, page), (), ""
    if (source.variants or source.fix) and not made.media:
        reason = why_not or next((note for note in made.notes if "texts alone" in note), "it takes ids alone")
        raise SourceError(f"under --generate, --fix and variants are for media before a text, of which: {reason}")
    if source.adapters and (made.example is not None or made.media):
        raise SourceError("--adapter keep with --generate is for decoders of texts alone: leave it out to merge them")
    first, *others = _sourced_programs(made.terms, made.example) if made.example is not None else _programs(made)
    first, *others = (_choosing(call) if source.adapters else call for call in (first, *others))
    step = replace(
        source,
        model=made.step,
        args=(),
        kwargs=first.kwargs,
        dynamic_shapes=first.dynamic_shapes,
        notes=(*source.notes, *made.notes, *more),
        example_notes=(),
        program=first.name,
        share=first.share,
        variants=tuple(others),
        soft=False,
        made_up=True,
        fix=(),
        decoding=replace(made.terms, media={m.name: places for m in made.media if (places := m.places) is not None}),
    )
    return step.as_stored


def _programs(made: MadeStep) -> Iterator[Variant]:
    """The calls of a step: one for any number of new tokens, but for recurrences, whose code for one is another.

    With media there are more, for the first step of one text.
    """
    terms = made.terms
    sizes: dict[str, int] = {} if terms.together == "alone" else {"batch": 1}
    batch = _BATCH if sizes else 1
    given = dict.fromkeys(terms.tables, _PAGES)
    if terms.together != "even":
        main = example_call(batch, _SEQ, given, uneven=terms.together == "any")
        if any(media.positions is not None for media in made.media):
            main["shifts"] = torch.zeros_like(main["lengths"])
        yield _call("main", main, {**sizes, "seq": 1})
        yield from (_media_call(media, terms) for media in made.media)
        return
    yield replace(_call("decode", example_call(batch, 1, given, uneven=False), sizes), share=9.0)
    if terms.chunk != 1:
        prefill = _call("prefill", example_call(batch, _SEQ, given, uneven=False), {**sizes, "seq": 2})
        yield replace(prefill, optional=True)


def _choosing(call: Variant) -> Variant:
    """The call with an adapter for each row."""
    rows, shapes = call.kwargs["lengths"], call.dynamic_shapes
    assert isinstance(shapes, Mapping)
    return replace(
        call,
        kwargs={**call.kwargs, CHOICE: torch.ones_like(rows)},
        dynamic_shapes={**shapes, CHOICE: shapes["lengths"]},
    )


def _media_call(media: Media, terms: Decoding) -> Variant:
    """The call with the whole prompt of one text and what stands before it: its tables name a page more than it has.

    Some code asks whether there are more keys than tokens, where masks are of the values of each token.
    """
    seq = media.ids.shape[1]
    given = example_call(1, seq, dict.fromkeys(terms.tables, -(-seq // terms.page) + 1), uneven=False)
    given.pop("window_first", None)
    beside = {name: tensor.clone() for name, tensor in media.step_inputs.items()}
    given |= {"input_ids": media.ids.clone(), "lengths": given["lengths"] * 0}
    call = _call(media.name, given, {"seq": 2, "pages": 2, "window_pages": 2})
    shapes: dict[str, Any] = dict(call.dynamic_shapes or {})
    length = shapes["input_ids"][1]
    shapes["media"] = {
        name: {tensor.dim() - 1: length} if name == "position_ids" or media.is_of_tokens(name) else {}
        for name, tensor in beside.items()
    }
    if media.divisors:
        images: dict[int, Any] = {0: "images", 2: "height", 3: "width"}
        shapes["media"] |= {name: {d: images[d] for d in images if d < beside[name].dim()} for name in media.packed}
    elif media.padded:
        for name in media.packed:
            sides = range(beside[name].dim() - 2, beside[name].dim()) if media.any_sides else ()
            shapes["media"][name] = {1: "images", **dict.fromkeys(sides, Dim.AUTO)}
    elif media.packed:
        shapes["media"] |= {name: {0: Dim.AUTO} for name in media.packed}
    fix = tuple(f"media.{name}" for name in media.numbers)
    return replace(call, kwargs={**call.kwargs, **beside}, dynamic_shapes=shapes, fix=fix, share=0.1, optional=True)


def _sourced_programs(terms: Decoding, example: Tensor) -> Iterator[Variant]:
    """The calls of an encoder-decoder: with the source of texts, and their first token; and with one more token."""
    sizes: dict[str, int] = {} if terms.together == "alone" else {"batch": 1}
    batch = _BATCH if sizes else 1
    given = example_call(batch, 1, dict.fromkeys(terms.tables, _PAGES), uneven=False)
    source = example.expand(batch, *example.shape[1:]).clone()
    if example.dim() == 2:
        source, sizes = source[:, :_SEQ], {**sizes, "source_tokens": 2, "source_pages": 1}
    else:
        pages = -(-terms.source // terms.page)
        given["source_table"] = torch.arange(batch * pages).reshape(batch, pages) % (CAPTURED_PAGES - 1) + 1
    yield _call("start", {**given, "lengths": given["lengths"] * 0, "source": source}, sizes)
    yield replace(_call("next", given, sizes), share=9.0)


def _call(name: str, given: dict[str, Tensor], least: Mapping[str, int]) -> Variant:
    """A call whose sizes change from step to step, those that have a `least`, and pages."""
    least = {"pages": 1, "window_pages": 1, **least}
    seconds = {"input_ids": "seq", "table": "pages", "window_table": "window_pages"}
    least |= {"drawn": 1, "marks": 1}
    seconds |= {"source": "source_tokens", "source_table": "source_pages"}
    named = {name: ("batch", seconds[name]) if name in seconds else ("batch",) for name in given}
    named |= {"ranks": ("drawn",), "marked": ("batch", "marks"), "changes": ("batch", "", "marks")}
    shapes = {
        name: {i: Dim(size, min=least[size]) for i, size in enumerate(sizes) if size in least}
        for name, sizes in named.items()
    }
    return Variant(name, (), given, shapes)
