"""fuse-quantized: which linear layers read stored weights, and that they compute the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.packed import Awq, Gptq, PackedRows
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme
from ir.decoding import Decoding
from ir.graph import Graph
from ir.machine.named import read_cluster
from ir.quantized_linear.linear_operator import is_quantized_linear
from passes.annotate_cost import node_cost
from passes.fusing.fuse_quantized import FuseQuantized
from tests.support.models.planning import machine

ROWS, COLUMNS = 16, 64
GPU = read_cluster("h200x1")


def words(*shape: int) -> torch.Tensor:
    return torch.randint(-(2**31), 2**31, shape, generator=torch.Generator().manual_seed(sum(shape))).to(torch.int32)


def bytes_of(dtype: torch.dtype) -> torch.Tensor:
    return torch.linspace(-100, 100, ROWS * COLUMNS).view(ROWS, COLUMNS).to(dtype)


def numbers(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5).to(torch.bfloat16)


FP8 = bytes_of(torch.float8_e4m3fn)
FUSED: Mapping[str, tuple[Scheme, dict[str, torch.Tensor]]] = {
    "packed": (PackedRows(4, COLUMNS), {"codes": words(ROWS, 8), "scale": numbers(ROWS, 2)}),
    "packed, zeros": (
        PackedRows(8, COLUMNS),
        {"codes": words(ROWS, 16), "scale": numbers(ROWS, 2), "zeros": words(4, 2)},
    ),
    "gptq": (Gptq(4), {"codes": words(8, ROWS), "zeros": words(2, 2), "scale": numbers(2, ROWS)}),
    "gptq, format 2": (Gptq(2, False), {"codes": words(4, ROWS), "zeros": words(2, 1), "scale": numbers(2, ROWS)}),
    "blocks": (Scaled((8, 32)), {"codes": FP8, "scale": numbers(2, 2).float()}),
    "channel": (Scaled(wide=False), {"codes": FP8, "scale": numbers(ROWS, 1)}),
    "tensor": (Scaled(), {"codes": bytes_of(torch.int8), "scale": numbers(1)}),
}
LEFT: Mapping[str, tuple[Scheme, dict[str, torch.Tensor]]] = {
    "awq": (Awq(), {"codes": words(COLUMNS, 2), "scale": numbers(2, ROWS), "zeros": words(2, 2)}),
    "columns in any order": (
        PackedRows(4, COLUMNS),
        {"codes": words(ROWS, 8), "scale": numbers(ROWS, 2), "g_idx": torch.arange(COLUMNS).to(torch.int32) % 2},
    ),
    "a scale for all rows": (PackedRows(4, COLUMNS), {"codes": words(ROWS, 8), "scale": numbers(1)}),
    "columns that end inside a word": (PackedRows(4, 60), {"codes": words(ROWS, 8), "scale": numbers(ROWS, 1)}),
}


def captured(scheme: Scheme, parts: dict[str, torch.Tensor]) -> Graph:
    """The graph of a linear layer over a stored weight, as one of a decoder's step."""
    columns = scheme.dequantize(parts).shape[1]
    layer = nn.Linear(columns, ROWS, dtype=torch.bfloat16)
    names = {what: "weight" if what == "codes" else f"weight_{what}" for what in parts}
    hold_stored(layer, "weight", KeptWeight(scheme, tuple(names.items()), torch.bfloat16), parts)
    graph = capture(layer, (torch.zeros(3, columns, dtype=torch.bfloat16),))
    return replace(graph, decoding=Decoding(page=4, max_length=8))


@pytest.mark.parametrize("name", FUSED)
def test_a_layer_reads_what_is_stored_and_computes_the_same(name: str) -> None:
    scheme, parts = FUSED[name]
    graph = captured(scheme, parts)
    fused = FuseQuantized().run(graph, GPU)
    *turned, linear = fused.nodes
    assert is_quantized_linear(linear)
    assert len(turned) == (len(parts) if isinstance(scheme, Gptq) else 0)
    x, bias = torch.randn(3, COLUMNS).to(torch.bfloat16), numbers(ROWS)
    weights = {"bias": bias} | {"weight" if w == "codes" else f"weight_{w}": t for w, t in parts.items()}
    assert torch.equal(*(interpret(g, (x,), weights).outputs[0] for g in (graph, fused)))
    cost = node_cost(linear, {}, {})
    assert cost.flops == 2 * 3 * ROWS * COLUMNS
    assert cost.bytes == sum(t.nbytes for t in (x, *weights.values())) + 3 * ROWS * 2


class Pair(nn.Module):
    """Two layers of one input, and one of theirs."""

    def __init__(self, name: str) -> None:
        super().__init__()
        scheme, parts = FUSED[name]
        names = {what: "weight" if what == "codes" else f"weight_{what}" for what in parts}
        self.layers = nn.ModuleDict({at: nn.Linear(COLUMNS, ROWS, dtype=torch.bfloat16) for at in ("q", "k", "o")})
        for layer in self.layers.values():
            hold_stored(layer, "weight", KeptWeight(scheme, tuple(names.items()), torch.bfloat16), parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.layers["q"](x), self.layers["k"](x)
        return self.layers["o"]((q.view(-1).sigmoid().view(3, ROWS) * k).repeat(1, COLUMNS // ROWS))


@pytest.mark.parametrize("name", ["packed", "packed, zeros", "gptq", "blocks", "channel", "tensor"])
def test_layers_of_one_input_are_one_product(name: str) -> None:
    parts = FUSED[name][1]
    graph = capture(Pair(name), (torch.zeros(3, COLUMNS, dtype=torch.bfloat16),))
    fused = FuseQuantized().run(replace(graph, decoding=Decoding(page=4, max_length=8)), GPU)
    both, last = (node for node in fused.nodes if is_quantized_linear(node))
    assert (len(both.arguments["codes"]), len(last.arguments["codes"])) == (2, 1)  # type: ignore[union-attr]
    weights = {
        f"layers.{at}.weight{'' if what == 'codes' else f'_{what}'}": part.flip(0) if at == "k" else part
        for at in ("q", "k", "o")
        for what, part in parts.items()
    }
    weights |= {f"layers.{at}.bias": numbers(ROWS) for at in ("q", "k", "o")}
    x = torch.randn(3, COLUMNS).to(torch.bfloat16)
    assert torch.equal(*(interpret(g, (x,), weights).outputs[0] for g in (graph, fused)))


class Others(Pair):
    """Products that stay apart: of several repeated modules, and one with a bias that is made after another's."""

    def __init__(self) -> None:
        super().__init__("channel")
        self.blocks = nn.ModuleList(Pair("channel").layers for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [block[at](x) for block in self.blocks for at in ("q", "k")]  # type: ignore[index]
        made.append(self.layers["q"](x))
        late = self.layers["k"]
        return torch.cat([*made, nn.functional.linear(x, late.weight, made[-1][0])])  # type: ignore[arg-type]


def test_layers_of_several_stages_stay_apart() -> None:
    graph = capture(Others(), (torch.zeros(3, COLUMNS, dtype=torch.bfloat16),))
    fused = FuseQuantized().run(replace(graph, decoding=Decoding(page=4, max_length=8)), GPU)
    products = [node for node in fused.nodes if is_quantized_linear(node)]
    assert [len(node.arguments["codes"]) for node in products] == [2, 2, 1, 1]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", LEFT)
def test_other_weights_are_dequantized(name: str) -> None:
    graph = captured(*LEFT[name])
    assert FuseQuantized().run(graph, GPU).nodes == graph.nodes


def test_on_gpus_in_decoders_alone() -> None:
    graph = captured(*FUSED["channel"])
    assert FuseQuantized().run(graph, machine(1)) is graph
    whole = replace(graph, decoding=Decoding())
    assert FuseQuantized().run(whole, GPU) is whole
