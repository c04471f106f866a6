"""From the source of a decoder to the source of its step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.export import Dim

from ir.checkpoint.transformers import is_pretrained
from ir.sources.decoder.own import own_step
from ir.sources.decoder.pretrained import pretrained_step
from ir.sources.decoder.step import example_call
from ir.sources.source import Source

_BATCH, _SEQ, _PAGES = 2, 6, 2  # of the example


def step_of(source: Source, max_length: int | None = None, page: int | None = None) -> Source:
    """The source of a decoder's step, which takes the arguments of `DecoderStep.forward` and keeps its texts in pools.

    `max_length`: tokens of a text, prompt included; `page`: tokens a page.
    Raises SourceError for what is no decoder, or one whose cached logits are not those that it has without a cache.
    """
    made = (pretrained_step if is_pretrained(source.model) else own_step)(source.model, max_length, page)
    call = example_call(_BATCH, _SEQ, dict.fromkeys(made.terms.tables, _PAGES))
    return replace(
        source,
        model=made.step,
        args=(),
        kwargs=call,
        dynamic_shapes={name: _dynamic(name) for name in call},
        notes=(*source.notes, *made.notes),
        example_notes=(),
        variants=(),
        soft=False,
        made_up=True,
        decoding=made.terms,
    )


def _dynamic(name: str) -> dict[int, Any]:
    """The sizes of an argument that change from step to step."""
    second = {"input_ids": "seq", "table": "pages", "window_table": "window_pages"}.get(name)
    sizes = ("batch", second) if second else ("batch",)
    return {i: Dim(size, min=1) for i, size in enumerate(sizes)}
