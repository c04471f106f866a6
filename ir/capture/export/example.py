"""A model and an example call of it: what is exported, and what its graph is checked against."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec

from ir.capture.loops.found import Loops
from ir.capture.sizes.dynamic import Marks
from ir.objects.signature import FixedTensor, Slot, Tree


@dataclass(frozen=True)
class Example:
    """A model and a call of it; the sizes in `marks` may change, and the values of `buffers`, by name, may not.

    `computed`: whether what is made of numbers alone, as by arange, is known while the model is traced.
    `repeats`: whether layers that are alike may be recorded once a kind; `templates` says from which call of each.
    `as_called`: whether the model's code that asks if it is compiled or exported gets the answer of a plain call;
    `told_exported`: whether code that asks for the export alone gets the true one.
    `joins`: whether tensors along a dimension of any size are recorded as one where they are all joined again;
    `packs`: whether those that are split by the values of an input are, and grids of images read by operators;
    `left_out`: results of the model that its graph has not;
    `loops`: the functions whose loops over a size that may change are recorded as scans.
    """

    model: nn.Module
    parameters: Sequence[inspect.Parameter]
    arguments: Tree
    tensors: Sequence[torch.Tensor]
    marks: Marks
    buffers: Mapping[str, FixedTensor] = field(default_factory=dict)
    computed: bool = False
    repeats: bool = True
    templates: tuple[int, ...] | None = None
    as_called: bool = False
    told_exported: bool = False
    joins: bool = True
    packs: bool = True
    left_out: tuple[int, ...] = ()
    loops: Loops = field(default_factory=Loops)

    def at(self, tensors: Sequence[torch.Tensor]) -> Example:
        """The same call with other tensors, whose sizes are all fixed."""
        return replace(self, tensors=tensors, marks=[{}] * len(tensors))


def layout_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The dimensions of a tensor, the outermost first, as a copy lies in memory: (0, 2, 3, 1) for channels last."""
    strides = torch.empty_like(tensor, device="meta").stride()
    return tuple(sorted(range(tensor.dim()), key=lambda d: -strides[d]))


def slotted(leaves: Sequence[Any], spec: TreeSpec, kinds: type | tuple[type, ...] = torch.Tensor) -> Tree:
    """Containers with a slot for each leaf of the given `kinds`; other leaves stay as they are."""
    slots = count()
    return Tree(spec, tuple(Slot(next(slots)) if isinstance(x, kinds) else x for x in leaves))
