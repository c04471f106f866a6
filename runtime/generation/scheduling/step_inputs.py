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
        return StepTensors.of(self | others, self.pack)


@dataclass(frozen=True)
class _Group:
    """Texts that have one new token each, and the inputs of their first step."""

    moves: list[int]  # the changes of the pages of each, by when this was made
    padded: TextBatch
    made: StepTensors
    same: StepTensors  # of these, those that do not differ from step to step, where they lie in `made`
    changing: tuple[str, ...]  # the others


@dataclass
class StepInputs:
    """The inputs of a decoder's steps.  No tensor is ever changed: stages know by the tensor, or pack, what they have.

    Small ones lie in one pack.  Where groups of texts take turns, each step has one of its own, which one copy brings;
    a step behind another one of its group has the same pack, of which nothing is copied, and what differs beside it.
    A large one that is as in an earlier step is the same.  Not thread-safe.
    """

    takes: Collection[str]
    generation: Generation
    pads: bool  # whether steps are padded to few shapes, for graphs
    packs: bool  # whether this process launches the graphs, into which one copy brings what was made together
    rows: int = 0  # of the last batch, those included that belong to nobody
    _groups: OrderedDict[tuple[TextInProgress, ...], _Group] = field(default_factory=OrderedDict)  # the latest last
    _latest: _Group | None = None  # of the last step

    def of(self, batch: TextBatch, ids: bool = True) -> StepTensors:
        """The inputs of a batch of texts that have one new token each; `ids`: whether with `input_ids`."""
        moves = [text.moves for text in batch.texts]
        group = self._groups.pop(batch.texts, None)
        made = self._next(group) if group is not None and group.moves == moves else None
        if group is None or made is None:
            group = self._group(batch, moves)
            made = group.made
        self._groups[batch.texts] = self._latest = group
        if len(self._groups) > GROUPS_KEPT:
            self._groups.popitem(last=False)
        self.rows = len(group.padded.texts)
        return made.beside(**self._packed(group.padded, ("input_ids",))) if ids else made

    def of_prompts(self, batch: TextBatch) -> StepTensors:
        """The inputs of a batch of texts that have more."""
        return self._packed(batch, self.takes)

    def forget(self) -> None:
        """Keep no text alive: all inputs of the next step are made anew."""
        self._groups.clear()
        self._latest = None

    def _group(self, batch: TextBatch, moves: list[int]) -> _Group:
        padded = with_spare_rows(batch, self.generation) if self.pads else batch
        marked = not all(text.options.changes_nothing for text in batch.texts)
        same = UNCHANGED - ({"marked", "changes"} if marked else set[str]())
        taken = [name for name in self.takes if name != "input_ids"]
        made, changing = self._packed(padded, taken), tuple(name for name in taken if name not in same)
        left = {name: tensor for name, tensor in made.items() if name not in changing}
        return _Group(moves, padded, made, StepTensors.of(left, made.pack and made.pack.without(changing)), changing)

    def _next(self, group: _Group) -> StepTensors | None:
        """The inputs of a further step of a group; None where one has another shape than in the first."""
        if self.generation.together == "equal":
            return None  # rows that belong to nobody are as long as the others
        first, changed = group.made, self._tensors(group.padded, group.changing)
        if any(tensor.shape != first[name].shape for name, tensor in changed.items()):
            return None
        if group is self._latest or first.pack is None:
            return group.same.beside(**(_each_pinned(changed) if self.packs else changed))
        pack = first.pack.copied()
        for name in changed.keys() & pack.tensors.keys():
            pack.tensors[name].copy_(changed[name])
        return StepTensors.of(first | _each_pinned(_beside(changed, pack)), pack)

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
