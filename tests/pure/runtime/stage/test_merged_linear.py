"""Linear layers of one input, merged: which are, and what they return."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from runtime.manifest.manifest import HeldTensor, ModelNode, ProgramStage
from runtime.stage.linear.merged_linear import MergedLinear, merge_linear


class Layer(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, size, bias) for size in (6, 4, 4))
        self.o = nn.Linear(6, 8, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = self.v(x)  # not in the order of the nodes
        return self.o(self.q(x) + (self.k(x) * v).sum(-1, keepdim=True)).view(len(x), -1)


def entry(module: nn.Module) -> ProgramStage:
    holds = {name: HeldTensor(name, "float32", tuple(p.shape)) for name, p in module.named_parameters()}
    return ProgramStage("stage_0.py", "Stage0", (), (), (), (), holds=holds)


def nodes(reads: Mapping[str, str], bias: bool) -> list[ModelNode]:
    """A product for each layer by name, of a value."""
    biases = {name: (f"{name}.bias",) * bias for name in reads}
    return [ModelNode("aten.linear", (x, f"{name}.weight", *biases[name]), (), False, "") for name, x in reads.items()]


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_layers_of_one_input_return_what_they_did(bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = Layer(bias), [torch.randn(rows, 3, 8) for rows in (2, 1, 2)]
    wanted = [layer(x) for x in inputs]
    merge_linear(layer, entry(layer), nodes({"q": "x", "k": "x", "v": "x", "o": "y"}, bias))
    assert [isinstance(one, MergedLinear) for one in layer.children()] == [True, True, True, False]
    for x, y in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(layer(x), y)
    assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in Layer(bias).parameters())


@torch.no_grad()
def test_what_a_failed_batch_left_is_not_taken_for_the_next_one() -> None:
    layer = Layer(False)
    merge_linear(layer, entry(layer), nodes({"q": "x", "k": "x", "v": "x"}, False))
    first, second = torch.randn(2, 8), torch.randn(2, 8)
    layer.q(first)
    assert torch.equal(layer.k(second), layer.k(second.clone()))
    assert not torch.equal(layer.k(first), layer.k(second))


def test_a_weight_that_others_read_and_layers_of_other_inputs_stay() -> None:
    layer = Layer(False)
    read = nodes({"q": "x", "k": "x", "v": "y", "o": "z"}, False)
    merge_linear(layer, entry(layer), [*read, ModelNode("aten.embedding", ("k.weight", "ids"), (), False, "")])
    assert not any(isinstance(one, MergedLinear) for one in layer.children())
