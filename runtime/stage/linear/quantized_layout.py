"""Stored weights of quantized linear layers, in memory as their kernel reads them fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch
from torch import Tensor, nn

from runtime.manifest.manifest import ModelNode, ProgramStage

_PRODUCTS, _TRANSPOSE = ("stagecut.stored_linear", "stagecut.quantized_linear"), "aten.t"  # the second in older ones


@torch.no_grad()
def lay_out_quantized(module: nn.Module, entry: ProgramStage, nodes: Sequence[ModelNode]) -> None:
    """Have the rows of a weight lie one after the other, and weights of one product side by side, in place.

    The scales of groups of packed codes lie group after group, as a kernel reads those of many rows at a time.
    `nodes`: those of the program.  Parameters keep their shapes and values; those of one product share their memory.
    """
    names = {held.weight: name for name, held in entry.holds.items()}
    turned = {node.makes[0].name: node.reads[0] for node in nodes if node.op == _TRANSPOSE}
    for node in nodes:
        stored = [turned.get(value, value) for value in node.reads[1:]]
        if node.op in _PRODUCTS and all(value in names for value in stored):
            across = any(value in turned for value in node.reads)
            kinds = [*_of_weights([module.get_parameter(names[value]) for value in stored])]
            for place, parts in enumerate(kinds):
                by_group = place == 1 and kinds[0][0].dtype == torch.int32 and parts[0].dim() == 2
                _lay_out(parts, across, by_group)


def _of_weights(stored: Sequence[nn.Parameter]) -> Iterator[Sequence[nn.Parameter]]:
    """The stored tensors of a product by what they are; those of all weights, as many as there are codes, follow."""
    count = len(list(takewhile(lambda one: one.dtype == stored[0].dtype, stored)))
    return (stored[i : i + count] for i in range(0, len(stored), count))


def _lay_out(parts: Sequence[nn.Parameter], across: bool, by_column: bool) -> None:
    """`across`: whether the rows of the weights are the columns of these."""
    if len(parts) == 1 and not across and not by_column:
        return
    rows = [_turned(part, across) for part in parts]
    whole = torch.cat(rows)
    whole = whole.mT.contiguous().mT if by_column else whole.contiguous()
    for part, one in zip(parts, whole.split([len(one) for one in rows]), strict=True):
        part.data = _turned(one, across).view(part.shape)


def _turned(tensor: Tensor, across: bool) -> Tensor:
    return tensor.mT if across and tensor.dim() == 2 else tensor.view(-1) if tensor.dim() == 0 else tensor
