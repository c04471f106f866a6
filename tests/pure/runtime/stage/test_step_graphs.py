"""The pass over graphs of compiled steps: when it runs, and sorts of which one is taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch.fx import GraphModule

from runtime.stage import speed
from runtime.stage.step_graphs import fewer_kernels


def test_decoders_are_compiled_with_it() -> None:
    layers = nn.Sequential(nn.Linear(8, 8))
    decoder: Any = SimpleNamespace(pools=("keys",), module=layers)
    options = speed._compile_options(decoder, torch.device("cuda"))["options"]
    assert options["post_grad_custom_pre_pass"] is fewer_kernels()
    torch.compile(layers, options=options)  # torch knows them


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("largest", [True, False])
def test_the_first_of_an_order_is_a_maximum(count: int, largest: bool) -> None:
    def ordered(x: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
        values, places = x.topk(ranks.shape[0], largest=largest)
        return values + 1, places

    found: list[str] = []

    def compile_graph(module: GraphModule, example: list[Tensor]) -> Any:
        fewer_kernels()(module.graph)
        module.graph.lint()
        module.recompile()
        found.extend(str(node.target) for node in module.graph.nodes)
        return module

    x, ranks = torch.randn(2, 50), torch.arange(count)
    made = torch.compile(ordered, backend=aot_autograd(fw_compiler=compile_graph), dynamic=True)(x, ranks)
    assert all(torch.equal(*pair) for pair in zip(made, ordered(x, ranks), strict=True))
    assert ("aten.topk.default" in found) == (count > 1 or not largest)
