"""Linear layers of one input as one product: with few rows, a small weight leaves most of a GPU idle."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runtime.manifest.manifest import ModelNode, ProgramStage
from runtime.stage.linear.few_rows import parts_with

_INPUT = -1


class LinearProduct(nn.Module):
    """The product of an input with the weights of several linear layers, kept until each has taken its part."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]), False)
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases), False) if biases else None
        self._parts = parts_with(self.weight)
        self._sizes = [layer.out_features for layer in layers]
        self._kept: dict[int, Tensor] = {}  # the parts that are still to be taken, and the input

    def forward(self, x: Tensor, place: int) -> Tensor:
        """The part of one layer."""
        if self._kept.get(_INPUT) is not x:
            parts = self._parts(x, self.weight, self.bias, self._sizes)
            self._kept.clear()
            self._kept.update({_INPUT: x, **dict(enumerate(parts))})
        part = self._kept.pop(place)
        if len(self._kept) == 1:
            self._kept.clear()
        return part


class MergedLinear(nn.Module):
    """A linear layer that is part of a product of several."""

    def __init__(self, product: LinearProduct, place: int) -> None:
        super().__init__()
        self.product, self._place = product, place

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self._place)


def merge_linear(module: nn.Module, entry: ProgramStage, nodes: Sequence[ModelNode]) -> None:
    """Merge those linear layers of a stage, in place, that take the same input and whose weights nothing else reads.

    `nodes`: those of the program.  The results are as they were in memory, and have no derivatives by the weights.
    """
    for names in _of_one_input(entry, nodes):
        layers = [module.get_submodule(name) for name in names]
        linear = [layer for layer in layers if type(layer) is nn.Linear]
        kinds = {(layer.weight.dtype, layer.bias is None) for layer in linear}
        if len(linear) == len(names) and len(kinds) == 1:
            product = LinearProduct(linear)
            for place, name in enumerate(names):
                module.set_submodule(name, MergedLinear(product, place))


def _of_one_input(entry: ProgramStage, nodes: Sequence[ModelNode]) -> list[list[str]]:
    """The names of linear layers of a stage that read the same value, two at least."""
    names = {held.weight: name for name, held in entry.holds.items() if name.endswith(".weight")}
    readers = Counter(value for node in nodes for value in node.reads)
    found: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if node.op == "aten.linear" and node.reads[1] in names and readers[node.reads[1]] == 1:
            found[node.reads[0]].append(names[node.reads[1]].removesuffix(".weight"))
    return [alike for alike in found.values() if len(alike) > 1]
