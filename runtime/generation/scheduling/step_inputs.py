"""The inputs of steps that follow each other, of which few differ from one to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch

from runtime.device.packs import Pack, one_pack
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.padding import with_few_widths, with_spare_rows
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.manifest.manifest import Generation

GROUPS_KEPT = 16  # of texts whose inputs are kept: those that stages compute in turn are at most one for each device

OF_PAGES = frozenset({"table", "window_table", "window_first", "slots", "source_table"})
"""Inputs that are the same in all steps of the same texts, as long as their pages lie where they lay."""

OF_OPTIONS = frozenset(
    {"counts", "shifts", "adapter", "source_lengths", "sampling", "seeds", "ranks", "marked", "changes"}
)
"""Inputs that are the same in all steps of one new token of the same texts.

`marked` and `changes` are not where logits of a text are changed: each of its tokens may have other logits changed.
"""

MADE_BY_SCHEDULER = frozenset({*OF_PAGES, *OF_OPTIONS, "input_ids", "lengths"})
"""The inputs that no caller has given, whose elements need no check."""


class StepTensors(dict[str, torch.Tensor]):
    """The inputs of a step by their names, of which those of the `pack` lie in one piece of memory."""

    pack: Pack | None = None

    @classmethod
    def of(cls, named: Mapping[str, torch.Tensor], pack: Pack | None) -> StepTensors:
        """Those of a pack, and others."""
        made = cls(named)
        if pack is not None:
            made.update(pack.tensors)
            made.pack = pack
        return made

    def beside(self, **others: torch.Tensor) -> StepTensors:
        """The same with others, which have no name of the pack."""
        made = StepTensors(self)
        made.update(others)
        made.pack = self.pack
        return made


@dataclass
class _Group:
    """Texts that have one new token each, and the inputs of their last step."""

    padded: TextBatch
    each: tuple[str, ...]  # the inputs that differ from step to step
    moved: tuple[str, ...]  # and those that do where a text has other pages
    moves: list[int]  # the changes of the pages of each text, at that step
    made: StepTensors


@dataclass
class StepInputs:
    """The inputs of a decoder's steps.  No tensor is ever changed: stages know by the tensor, or pack, what they have.

    Small ones lie in one pack, which one copy brings; each step has one of its own.  Of a further step of a group the
    pack is a copy of the one before, in which is changed what differs, and a large input that is as it was is the same.
    Not thread-safe.
    """

    takes: Collection[str]
    generation: Generation
    pads: bool  # whether steps are padded to few shapes, for graphs
    packs: bool  # whether this process launches the graphs, into which one copy brings what was made together
    rows: int = 0  # of the last batch, those included that belong to nobody
    _groups: OrderedDict[tuple[TextInProgress, ...], _Group] = field(default_factory=OrderedDict)  # the latest last

    def of(self, batch: TextBatch) -> StepTensors:
        """The inputs of a batch of texts that have one new token each, without that: see `ids`."""
        moves = [text.moves for text in batch.texts]
        group = self._groups.pop(batch.texts, None)
        if group is None or not self._goes_on(group, moves):
            group = self._group(batch, moves)
        self._groups[batch.texts] = group
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        self.rows = len(group.padded.texts)
        return group.made

    def ids(self, batch: TextBatch) -> StepTensors:
        """The new tokens of the last batch that `of` had."""
        return self._packed(self._groups[batch.texts].padded, ("input_ids",))

    def of_prompts(self, batch: TextBatch) -> StepTensors:
        """The inputs of a batch of texts that have more."""
        return self._packed(batch, self.takes)

    def forget(self) -> None:
        """Keep no text alive: all inputs of the next step are made anew."""
        self._groups.clear()

    def _group(self, batch: TextBatch, moves: list[int]) -> _Group:
        padded = with_spare_rows(batch, self.generation) if self.pads else batch
        marked = not all(text.options.changes_nothing for text in batch.texts)
        same = OF_OPTIONS - ({"marked", "changes"} if marked else set[str]())
        taken = [name for name in self.takes if name != "input_ids"]
        moved = tuple(name for name in taken if name not in same)
        each = tuple(name for name in moved if name not in OF_PAGES)
        return _Group(padded, each, moved, moves, self._packed(padded, taken))

    def _goes_on(self, group: _Group, moves: list[int]) -> bool:
        """Give a group the inputs of its next step; False where one has another shape than in the last."""
        if self.generation.together == "equal":
            return False  # rows that belong to nobody are as long as the others
        changed = self._tensors(group.padded, group.each if moves == group.moves else group.moved)
        made, pack = group.made, group.made.pack
        if any(tensor.shape != made[name].shape for name, tensor in changed.items()):
            return False
        if pack is not None:
            pack = pack.changed(changed)
            changed = _beside(changed, pack)
        group.moves = moves
        group.made = StepTensors.of(made | (_each_pinned(changed) if self.packs else changed), pack)
        return True

    def _packed(self, batch: TextBatch, names: Collection[str]) -> StepTensors:
        made = self._tensors(batch, names)
        if not (self.packs and self.pads):
            return StepTensors(made)
        pack = Pack.of_small(made)
        return StepTensors.of(_each_pinned(made if pack is None else _beside(made, pack)), pack)

    def _tensors(self, batch: TextBatch, names: Collection[str]) -> dict[str, torch.Tensor]:
        made = batch.inputs(names, self.generation)
        return with_few_widths(made, self.generation) if self.pads else made


def _beside(named: Mapping[str, torch.Tensor], pack: Pack) -> dict[str, torch.Tensor]:
    """Those that are not in the pack."""
    return {name: tensor for name, tensor in named.items() if name not in pack.tensors}


def _each_pinned(named: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors where an accelerator copies them on its own."""
    return {name: one_pack([tensor])[0] for name, tensor in named.items()}
