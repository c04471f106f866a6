"""The inputs of steps that follow each other, of which few differ from one to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from runtime.device.packs import one_pack
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.padding import with_few_widths, with_spare_rows
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.manifest.manifest import Generation

GROUPS_KEPT = 16  # of texts whose inputs are kept: those that stages compute in turn are at most one for each device

UNCHANGED = frozenset(
    {
        "counts",
        "table",
        "window_table",
        "window_first",
        "shifts",
        "adapter",
        "slots",
        "source_lengths",
        "source_table",
        "sampling",
        "seeds",
        "ranks",
        "marked",
        "changes",
    }
)
"""Inputs that are the same in all steps of one new token of the same texts, as long as their pages lie where they lay.

`marked` and `changes` are not where logits of a text are changed: each of its tokens may have other logits changed.
"""

MADE_BY_SCHEDULER = frozenset({*UNCHANGED, "input_ids", "lengths"})
"""The inputs that no caller has given, whose elements need no check."""


@dataclass(frozen=True)
class _Group:
    """Texts that have one new token each, and what their steps have in common."""

    moves: list[int]  # the changes of the pages of each, by when this was made
    padded: TextBatch
    made: Mapping[str, torch.Tensor]
    changing: tuple[str, ...]  # inputs that differ from step to step


@dataclass
class StepInputs:
    """The inputs of a decoder's steps.  What is as in an earlier step is the same tensor, and none is ever changed.

    So stages know by the tensor alone that they have it already.  Not thread-safe.
    """

    takes: Collection[str]
    generation: Generation
    pads: bool  # whether steps are padded to few shapes, for graphs
    packs: bool  # whether this process launches the graphs, into which one copy brings what was made together
    rows: int = 0  # of the last batch, those included that belong to nobody
    _groups: OrderedDict[tuple[TextInProgress, ...], _Group] = field(default_factory=OrderedDict)  # the latest last

    def of(self, batch: TextBatch, ids: bool = True) -> Mapping[str, torch.Tensor]:
        """The inputs of a batch of texts that have one new token each; `ids`: whether with `input_ids`."""
        group = self._group_of(batch)
        self.rows = len(group.padded.texts)
        made = {**group.made, **self._tensors(group.padded, group.changing)}
        return {**made, **self._tensors(group.padded, ("input_ids",))} if ids else made

    def of_prompts(self, batch: TextBatch) -> Mapping[str, torch.Tensor]:
        """The inputs of a batch of texts that have more."""
        return self._tensors(batch, self.takes)

    def forget(self) -> None:
        """Keep no text alive: all inputs of the next step are made anew."""
        self._groups.clear()

    def _group_of(self, batch: TextBatch) -> _Group:
        moves = [text.moves for text in batch.texts]
        group = self._groups.pop(batch.texts, None)
        if group is None or group.moves != moves or self.generation.together == "equal":
            group = self._made(batch, moves)
        self._groups[batch.texts] = group
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        return group

    def _made(self, batch: TextBatch, moves: list[int]) -> _Group:
        padded = with_spare_rows(batch, self.generation) if self.pads else batch
        marked = not all(text.options.changes_nothing for text in batch.texts)
        same = UNCHANGED - ({"marked", "changes"} if marked else set[str]())
        changing = tuple(name for name in self.takes if name not in same and name != "input_ids")
        return _Group(moves, padded, self._tensors(padded, [n for n in self.takes if n in same]), changing)

    def _tensors(self, batch: TextBatch, names: Collection[str]) -> dict[str, torch.Tensor]:
        made = batch.inputs(names, self.generation)
        if not self.pads:
            return made
        made = with_few_widths(made, self.generation)
        return dict(zip(made, one_pack([*made.values()]), strict=True)) if self.packs else made
