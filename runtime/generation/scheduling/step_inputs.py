"""The inputs of steps that follow each other, of which few differ from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch

from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.padding import with_few_widths, with_spare_rows
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.manifest.manifest import Generation


@dataclass
class StepInputs:
    """The inputs of a decoder's steps.  What is as in the step before is the same tensor, and none is ever changed.

    So stages know by the tensor alone that they have it already.  Not thread-safe.
    """

    takes: Collection[str]
    generation: Generation
    pads: bool  # whether steps are padded to few shapes
    _texts: tuple[TextInProgress, ...] = ()  # of the step before, ...
    _moves: list[int] = field(default_factory=list)  # ... and where their pages lay
    _padded: TextBatch = TextBatch((), ())
    _decides: dict[str, object] = field(default_factory=dict)  # what decided about the elements of each tensor
    _made: dict[str, torch.Tensor] = field(default_factory=dict)
    _changing: tuple[str, ...] = ()  # inputs that differ from step to step of the same texts

    def of(self, batch: TextBatch, ids: bool = True) -> Mapping[str, torch.Tensor]:
        """The inputs of a batch of texts that have one new token each; `ids`: whether with `input_ids`."""
        moves = [text.moves for text in batch.texts]
        if moves != self._moves or batch.texts != self._texts or self.generation.together == "equal":
            self._others(batch)
            self._moves, self._texts = moves, batch.texts
        changing = (*self._changing, "input_ids") if ids else self._changing
        return {**self._made, **self._tensors(changing)}

    @property
    def rows(self) -> int:
        """Rows of the last batch, those included that belong to nobody."""
        return len(self._padded.texts)

    def forget(self) -> None:
        """Keep no text alive: all inputs of the next step are made anew."""
        self._texts, self._moves, self._padded = (), [], TextBatch((), ())
        self._decides, self._made = {}, {}

    def _others(self, batch: TextBatch) -> None:
        """Make what differs for these texts from those of the step before."""
        self._padded = with_spare_rows(batch, self.generation) if self.pads else batch
        decides = {name: decide(self._padded) for name, decide in DECIDES.items() if name in self.takes}
        stale = [name for name, value in decides.items() if name not in self._made or self._decides[name] != value]
        self._made |= self._tensors(stale)
        self._decides = decides
        marked = not all(text.options.changes_nothing for text in batch.texts)
        same = {*DECIDES, "input_ids"} - ({"marked", "changes"} if marked else set[str]())
        self._changing = tuple(name for name in self.takes if name not in same)

    def _tensors(self, names: Collection[str]) -> dict[str, torch.Tensor]:
        made = self._padded.inputs(names, self.generation)
        return with_few_widths(made, self.generation) if self.pads else made


def _of_pages(texts: tuple[TextInProgress, ...]) -> object:
    """Equal for the same texts, if their pages lie where they lay."""
    return texts, [text.moves for text in texts]


def _of_marks(texts: tuple[TextInProgress, ...]) -> object:
    """Equal where no text has a logit that changes: others may change with each token."""
    return len(texts) if all(text.options.changes_nothing for text in texts) else object()


DECIDES: dict[str, Callable[[TextBatch], object]] = {
    "counts": lambda batch: batch.counts,
    "table": lambda batch: _of_pages(batch.texts),
    "window_table": lambda batch: _of_pages(batch.texts),
    "window_first": lambda batch: [text.left for text in batch.texts],
    "shifts": lambda batch: [text.media.shift if text.media else 0 for text in batch.texts],
    "adapter": lambda batch: [text.options.adapter for text in batch.texts],
    "slots": lambda batch: [text.slot for text in batch.texts],
    "source_lengths": lambda batch: [text.source.states for text in batch.texts if text.source],
    "source_table": lambda batch: _of_pages(batch.texts),
    "sampling": lambda batch: [text.options.sampling for text in batch.texts],
    "seeds": lambda batch: [text.options.sampling.seed for text in batch.texts],
    "ranks": lambda batch: [text.options.sampling for text in batch.texts],
    "marked": lambda batch: _of_marks(batch.texts),
    "changes": lambda batch: _of_marks(batch.texts),
}
"""By the name of an input: what decides about its elements, for the texts of a batch, as long as those are the same."""

MADE_BY_SCHEDULER = frozenset({*DECIDES, "input_ids", "lengths"})
"""The inputs that no caller has given, whose elements need no check."""
