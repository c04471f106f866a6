"""Batches of few shapes: steps are padded, so that one recorded graph serves many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch.nn.functional import pad

from runtime.generation.options import TextOptions
from runtime.generation.scheduling.batches import TextBatch, power_of_two
from runtime.generation.scheduling.pages import TRASH
from runtime.generation.scheduling.sequences import TextInProgress, TextSource
from runtime.manifest.manifest import Generation

SEQ = 128  # new tokens of a prefill are rounded up to a multiple of it
LEAST = 2  # of a width: torch compiles for 1 apart
_TABLES = ("table", "window_table", "source_table")
_REPEATED = ("marked", "changes")  # inputs that may say the same twice
_OF_SPARE_ROWS = TextOptions(1)


def with_spare_rows(batch: TextBatch, generation: Generation) -> TextBatch:
    """A batch of one new token each, with rows up to a power of two that belong to nobody: they write to page 0."""
    first = batch.texts[0]
    if max(batch.counts) > 1 or not generation.cached or generation.together == "alone":
        return batch
    spare = power_of_two(len(batch.texts)) - len(batch.texts)
    if not spare:
        return batch
    row = _spare_row(first, first.length if generation.together == "equal" else 0)
    return replace(batch, texts=(*batch.texts, *[row] * spare), counts=(*batch.counts, *[1] * spare))


def _spare_row(like: TextInProgress, length: int) -> TextInProgress:
    source = like.source and TextSource(torch.zeros(0), 1)
    return TextInProgress([0] * (length + 1), _OF_SPARE_ROWS, like.continuation, length, source=source)


def with_few_widths(given: Mapping[str, torch.Tensor], generation: Generation) -> dict[str, torch.Tensor]:
    """The inputs of a step with tables as wide as a power of two; a prefill, where rows may be padded, rounded up.

    Not for the first step of a text with a source or media, whose program may take other sizes.
    """
    made = dict(given)
    longest = -(-generation.max_length // generation.page)
    for name in _TABLES:
        if name in made:
            width = made[name].shape[1]
            wider = max(width, min(max(power_of_two(width), LEAST), longest))
            made[name] = pad(made[name], (0, wider - width), value=TRASH) if wider > width else made[name]
    for name in _REPEATED:
        if name in made and made[name].shape[-1] < LEAST:
            made[name] = torch.cat([made[name]] * LEAST, -1)
    padded = generation.together == "any" and generation.cached and not (generation.slots or generation.chunk)
    if padded and "input_ids" in made and (seq := made["input_ids"].shape[1]) > 1 and seq % SEQ:
        made["input_ids"] = pad(made["input_ids"], (-seq % SEQ, 0))
    return made
