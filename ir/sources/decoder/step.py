"""One step of a decoder as a module: new tokens of each row in, the next token of each row out."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ir.decoding import Decoding
from ir.sources.decoder.media import Media
from ir.sources.decoder.sampling import TokenSampling

OWN = (
    *("table", "window_table", "window_first", "slots"),
    *("source", "source_lengths", "source_table", "shifts", "adapter"),
)
"""Inputs of a step that say where its rows lie and what an encoder reads; the model's own have other names."""


class DecoderStep(nn.Module):
    """A decoder's class is derived from this one and from its own, whose `forward` is then behind `logits`."""

    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        counts: Tensor,
        table: Tensor | None = None,
        window_table: Tensor | None = None,
        window_first: Tensor | None = None,
        slots: Tensor | None = None,
        source: Tensor | None = None,
        source_lengths: Tensor | None = None,
        source_table: Tensor | None = None,
        shifts: Tensor | None = None,
        adapter: Tensor | None = None,
        *,
        sampling: Tensor,
        seeds: Tensor,
        ranks: Tensor,
        marked: Tensor,
        changes: Tensor,
        **media: Tensor,
    ) -> dict[str, Tensor]:
        """The token after the last new one of each row, and its log probability; see `TokenSampling.next_tokens`.

        `input_ids` `int64[batch, seq]` are new tokens, padded on the left; `lengths` `int64[batch]` tokens that rows
        have in the pools, `counts` `int64[batch]` their new ones.  `table` `int64[batch, pages]` are the pages of each
        row, `window_table` `int64[batch, window_pages]` those of sliding layers, which begin at the position
        `window_first` `int64[batch]`; `slots` `int64[batch]` say where is what layers keep of a row as a whole.
        `source` `[batch, source, …]` is for the encoder, padded on the right, with `source_lengths` `int64[batch]` and
        its pages `source_table` `int64[batch, source_pages]`.  `media` are what the model takes beside ids in the first
        step of a text, such as the pixels of an image; where these move the positions of what follows, `shifts`
        `int64[batch]` are added to those of a row.  `adapter` `int64[batch]` is the one of each row.  The others are
        those of `TokenSampling`: `sampling` `float32[batch, 4]` has its temperature, top_k, top_p and min_p, and
        `changes` `float32[batch, 2, marks]` its penalty and bias.
        """
        own = (table, window_table, window_first, slots, source, source_lengths, source_table, shifts, adapter)
        tables = {**dict(zip(OWN, own, strict=True)), **media}
        logits = self.logits(input_ids, lengths, counts, {name: t for name, t in tables.items() if t is not None})
        temperature, top_k, top_p, min_p = sampling.unbind(1)
        penalty, bias = changes.unbind(1)
        rule = TokenSampling(temperature, top_k, top_p, min_p, seeds, ranks, marked, penalty, bias)
        return rule.next_tokens(logits, lengths + counts)

    def logits(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """`[batch, vocabulary]`, of a decoder that takes these arguments itself."""
        whole: Any = super().forward
        return whole(input_ids, lengths, counts, **tables)


@dataclass(frozen=True)
class CacheUse:
    """The way in which a model takes its cache."""

    counts_keys: bool = False  # whether it is told the width of the cache, with a padding mask, not positions alone
    contiguous: bool = False  # whether it views keys and values, which must then be contiguous


@dataclass(frozen=True)
class MadeStep:
    """A step with the terms on which it continues texts."""

    step: nn.Module
    terms: Decoding
    notes: tuple[str, ...] = ()  # for the user
    example: Tensor | None = None  # what an encoder reads of one text: ids `[1, seq]`, or others of a fixed shape
    media: tuple[Media, ...] = ()  # what may stand before a text, each for a program of its own


def as_step(model: nn.Module, kind: type[DecoderStep]) -> nn.Module:
    """A copy of a module that shares its tensors, of a class derived from `kind` and from its own."""
    held = (v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor))
    shared = {id(t): t for t in (*model.parameters(), *model.buffers(), *held)}
    copy, own = deepcopy(model, shared), type(model)
    copy.__class__ = type(own.__name__, (kind, own), {"__module__": kind.__module__, "__doc__": own.__doc__})
    return copy


def example_call(batch: int, seq: int, tables: Mapping[str, int], uneven: bool = True) -> dict[str, Tensor]:
    """The arguments of a step: rows of different lengths on pages of their own, the first greedy, the others not.

    `tables`: the number of pages that a row has in each.  Unless `uneven`, all rows have `seq` new tokens.
    """
    whole, real, row = torch.full((batch,), 0), torch.zeros(batch), torch.arange(batch)
    given = {
        "input_ids": torch.randint(1, 3, (batch, seq)),
        "lengths": whole + 1,
        "counts": row % seq + 1 if uneven else whole + seq,
    }
    for name, pages in tables.items():
        given[name] = torch.arange(1, batch * pages + 1).reshape(batch, pages)
    if "slots" in tables:
        given["slots"] = row + 1
    if "source_table" in tables:
        given["source_lengths"] = whole + 1
    if "window_table" in tables:
        given["window_first"] = whole
    marks = torch.arange(2).expand(batch, 2).clone()
    given |= {"sampling": torch.stack([row.float(), real, real + 1, real], 1), "seeds": row, "ranks": torch.arange(4)}
    return {**given, "marked": marks, "changes": torch.stack([marks + 1.0, marks.float()], 1)}
