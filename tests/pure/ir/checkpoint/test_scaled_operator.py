"""Codes and scales are one operator of graphs, which makes, costs and reads as much as the formula."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

import pytest
import torch
from torch import nn

from codegen.lines.stage_file import stage_files
from codegen.text.stage_source import emit
from ir.capture import capture
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scaled_operator import DEQUANTIZED, is_dequantized
from ir.cost import FREE, Cost
from ir.graph import Graph
from ir.operators.higher_order import with_inner
from ir.plan import plan_stages
from passes.annotate_cost import AnnotateCost
from passes.insert_transfers import InsertTransfers
from passes.propagate_shapes import PropagateShapes
from tests.support.models.planning import cut, machine

ROWS, COLUMNS = 24, 40


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(torch.float8_e4m3fn)


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5


CODES = fp8(ROWS, COLUMNS)
WEIGHTS: Mapping[str, tuple[Scaled, dict[str, torch.Tensor]]] = {
    "blocks": (Scaled((8, 20)), {"codes": CODES, "scale": numbers(3, 2)}),
    "blocks as wide as the weight": (Scaled((8, 128)), {"codes": CODES, "scale": numbers(3, 1)}),
    "tensor": (Scaled(), {"codes": CODES, "scale": numbers()}),
    "channel": (Scaled(wide=False), {"codes": CODES, "scale": numbers(ROWS, 1).to(torch.bfloat16)}),
    "integers": (Scaled(), {"codes": CODES.to(torch.int8), "scale": numbers(ROWS)}),
    "a scale for each code": (Scaled(), {"codes": CODES, "scale": numbers(ROWS, COLUMNS)}),
}
SMALLER = {
    "rows that end inside a block": (Scaled((16, 20)), {"codes": CODES, "scale": numbers(2, 2)}),
    "columns that end inside a block": (Scaled((8, 16)), {"codes": CODES, "scale": numbers(3, 3)}),
    "exponents": (Scaled((8, 20)), {"codes": CODES, "scale": torch.full((3, 2), 125, dtype=torch.uint8)}),
}


class Plain(nn.Module):
    """The formula, node for node."""

    def __init__(self, scheme: Scaled, parts: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.scheme, self.dtype = scheme, dtype
        self.codes, self.scale = (nn.Parameter(parts[name], requires_grad=False) for name in ("codes", "scale"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.scheme.dequantize({"codes": self.codes, "scale": self.scale})
        return nn.functional.linear(x, weight.to(self.dtype))


def layer(name: str, dtype: torch.dtype) -> nn.Linear:
    scheme, parts = {**WEIGHTS, **SMALLER}[name]
    kept = nn.Linear(COLUMNS, ROWS, bias=False, dtype=dtype)
    names = {what: "weight" if what == "codes" else f"weight_{what}" for what in parts}
    hold_stored(kept, "weight", KeptWeight(scheme, tuple(names.items()), dtype), parts)
    for what, parameter in names.items():
        kept._parameters[parameter] = nn.Parameter(parts[what], requires_grad=False)
    return kept


def costed(model: nn.Module, dtype: torch.dtype) -> Graph:
    graph = capture(model, (torch.zeros(3, COLUMNS, dtype=dtype),))
    return AnnotateCost().run(PropagateShapes().run(graph, machine(1)), machine(1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", [*WEIGHTS, *SMALLER])
def test_the_weight_is_that_of_the_formula(name: str, dtype: torch.dtype) -> None:
    scheme, parts = {**WEIGHTS, **SMALLER}[name]
    weight = layer(name, dtype).weight
    assert weight.dtype == dtype
    assert torch.equal(weight, scheme.dequantize(parts).to(dtype))
    assert torch.equal(layer(name, dtype).weight, weight)  # what is stored has not changed


@pytest.mark.parametrize("name", WEIGHTS)
def test_it_costs_what_the_kernels_of_the_formula_cost(name: str) -> None:
    made, product = costed(layer(name, torch.bfloat16), torch.bfloat16).nodes
    *plain, last = costed(Plain(*WEIGHTS[name], torch.bfloat16), torch.bfloat16).nodes
    assert is_dequantized(made)
    assert product.cost == last.cost
    assert made.cost == reduce(add, (node.cost for node in plain), FREE)


def test_scales_of_smaller_blocks_are_spread_first() -> None:
    made, _ = costed(layer("rows that end inside a block", torch.float32), torch.float32).nodes
    codes, values, scale = ROWS * COLUMNS, 4 * ROWS * COLUMNS, 16
    assert made.cost == Cost(0, (codes + values) + (scale + values) + 3 * values, 3, elements=2 * codes)


def test_scales_that_are_no_floats_are_made_some_by_nodes_of_their_own() -> None:
    *others, made, _ = capture(layer("exponents", torch.float32), (torch.zeros(3, COLUMNS),)).nodes
    assert is_dequantized(made)
    assert others


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(3, ROWS, COLUMNS))
        self.layer = layer("blocks", torch.float32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) @ self.up


def test_a_stage_file_has_the_function_once() -> None:
    model, scheme = Experts(), Scaled((8, 20))
    parts = {"codes": fp8(3, ROWS, COLUMNS), "scale": numbers(3, 3, 2)}
    hold_stored(model, "up", KeptWeight(scheme, (("codes", "up"), ("scale", "up_scale")), torch.float32), parts)
    graph = PropagateShapes().run(capture(model, (torch.zeros(5, COLUMNS),)), machine(1))
    assert sum(call.op == DEQUANTIZED for node in graph.nodes for call in with_inner(node)) == 2  # type: ignore[arg-type]
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "experts")
    source = emit(file).source
    assert source.count("def dequantize(codes: torch.Tensor, scale: torch.Tensor, ") == 1
    assert "dequantize(self.layer.weight, self.layer.weight_scale, [8, 20], torch.float32)" in source
    assert "dequantize(up_i, up_scale_i, [8, 20], torch.float32)" in source
    namespace: dict[str, object] = {"__name__": "stage_0"}
    exec(source, namespace)
    assert callable(namespace["dequantize"])


def test_a_stage_file_without_such_weights_has_no_function() -> None:
    graph = PropagateShapes().run(capture(nn.Linear(4, 4), (torch.zeros(2, 4),)), machine(1))
    staged = InsertTransfers().run(cut(graph, [0] * len(graph.nodes)), machine(1))
    [[file]] = stage_files(plan_stages(staged, machine(1)), "plain")
    assert "dequantize" not in emit(file).source
