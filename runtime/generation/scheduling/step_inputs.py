"""The inputs of steps that follow each other, of which few differ from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.padding import with_few_widths
from runtime.manifest.manifest import Generation


@dataclass(frozen=True)
class _Made:
    """A tensor, what decides about its elements, and what must live as long as that is compared."""

    decides: Any
    held: Any
    tensor: torch.Tensor


@dataclass
class StepInputs:
    """The inputs of a decoder's steps.  What is as in the step before is the same tensor, and none is ever changed.

    So stages know by the tensor alone that they have it already.  Not thread-safe.
    """

    takes: Collection[str]
    generation: Generation
    pads: bool  # whether widths are padded to few
    _made: dict[str, _Made] = field(default_factory=dict)

    def of(self, batch: TextBatch, ids: bool = True) -> dict[str, torch.Tensor]:
        """The inputs of a batch of texts that have one new token each; `ids`: whether with `input_ids`."""
        decides = {name: decide(batch) for name, decide in DECIDES.items() if name in self.takes}
        known = {name: made for name, made in self._made.items() if made.decides == decides.get(name)}
        stale = [name for name in self.takes if name not in known and (ids or name != "input_ids")]
        tensors = batch.inputs(stale, self.generation)
        tensors = with_few_widths(tensors, self.generation) if self.pads else tensors
        for name, tensor in tensors.items():
            if name in decides:
                self._made[name] = _Made(decides[name], _lists(batch), tensor)
        return {name: made.tensor for name, made in known.items()} | tensors


def _lists(batch: TextBatch) -> Sequence[object]:
    """The lists of pages that `_of_pages` tells apart by their addresses."""
    return [(text.pages, text.window_pages, text.source_pages) for text in batch.texts]


def _of_pages(pages: Sequence[int], left: int = 0) -> tuple[int, int, int]:
    """Equal for the same list of pages where it has not changed: pages join it, and `left` have left it in front."""
    return (id(pages), len(pages), left) if pages else (0, 0, 0)


def _of_marks(batch: TextBatch) -> object:
    """Equal where no text has a logit that changes: others may change with each token."""
    return len(batch.texts) if all(text.options.changes_nothing for text in batch.texts) else object()


DECIDES: dict[str, Callable[[TextBatch], object]] = {
    "lengths": lambda batch: [text.length for text in batch.texts],
    "counts": lambda batch: batch.counts,
    "table": lambda batch: [_of_pages(text.pages) for text in batch.texts],
    "window_table": lambda batch: [_of_pages(text.window_pages, text.left) for text in batch.texts],
    "window_first": lambda batch: [text.left for text in batch.texts],
    "shifts": lambda batch: [text.media.shift if text.media else 0 for text in batch.texts],
    "adapter": lambda batch: [text.options.adapter for text in batch.texts],
    "slots": lambda batch: [text.slot for text in batch.texts],
    "source_lengths": lambda batch: [text.source.states for text in batch.texts if text.source],
    "source_table": lambda batch: [_of_pages(text.source_pages) for text in batch.texts],
    "sampling": lambda batch: [text.options.sampling for text in batch.texts],
    "seeds": lambda batch: [text.options.sampling.seed for text in batch.texts],
    "ranks": lambda batch: [text.options.sampling for text in batch.texts],
    "marked": lambda batch: _of_marks(batch),
    "changes": lambda batch: _of_marks(batch),
}
"""By the name of an input: what decides about its elements, for the texts of a batch."""

MADE_BY_SCHEDULER = frozenset({*DECIDES, "input_ids"})
"""The inputs that no caller has given, whose elements need no check."""
