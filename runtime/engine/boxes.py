"""Parts of tensors: those of the outputs that a caller asks for, taken where a stage made them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from runtime.call.outputs.output_parts import TensorBox

Boxes = tuple[TensorBox, ...]  # of one output; none: nobody wants it


def taken(tensor: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """A copy of a box of a tensor; of several, their elements one box behind the other; of none, no elements."""
    if not boxes:
        return tensor.new_empty((0,) * tensor.dim())
    copies = [_slice(tensor, box).clone(memory_format=torch.contiguous_format) for box in boxes]
    return copies[0] if len(copies) == 1 else torch.cat([copy.view(-1) for copy in copies])


def taken_shape(shape: Sequence[int], boxes: Boxes) -> tuple[int, ...]:
    """The shape of what `taken` returns of a tensor of this shape."""
    if not boxes:
        return (0,) * len(shape)
    shapes = [tuple(len(range(*r)) for r in box) for box in boxes]
    return shapes[0] if len(shapes) == 1 else (sum(map(prod, shapes)),)


def _slice(tensor: torch.Tensor, box: TensorBox) -> torch.Tensor:
    return tensor[tuple(slice(*r) for r in box)]
