"""Models with quantized weights are recorded with plain ones, which the graph makes of the stored tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

from ir.analysis.interpret import interpret
from ir.capture import capture
from ir.capture.stored_weights import formulas
from ir.checkpoint.quantized.four_bit_floats import Fp4, Mxfp4Experts
from ir.checkpoint.quantized.kept import KeptWeight, hold_stored
from ir.checkpoint.quantized.packed import Awq
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme
from ir.errors import CaptureError
from ir.graph import Call, Graph

X = torch.linspace(-1, 1, 128).view(4, 32)


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(torch.float8_e4m3fn)


def byte(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def words(*shape: int) -> torch.Tensor:
    return torch.randint(-(2**31), 2**31, shape).to(torch.int32)


LAYERS: Mapping[str, tuple[Scheme, Mapping[str, torch.Tensor]]] = {  # of 32 rows and columns
    "fp8": (Scaled((16, 16)), {"codes": fp8(32, 32), "scale": torch.rand(2, 2)}),
    "fp8 with exponents": (Scaled((16, 16)), {"codes": fp8(32, 32), "scale": byte(2, 2) // 64 + 126}),
    "fp4, which has a table": (Fp4(), {"codes": byte(32, 16), "scale": fp8(32, 2).abs()}),
    "awq, which lies transposed": (Awq(), {"codes": words(32, 4), "zeros": words(1, 4), "scale": torch.rand(1, 32)}),
}
EXPERTS: Mapping[str, tuple[Scheme, Mapping[str, torch.Tensor]]] = {
    "fp8": (Scaled((16, 16)), {"codes": fp8(3, 32, 32), "scale": torch.rand(3, 2, 2)}),
    "mxfp4": (Mxfp4Experts(), {"codes": byte(3, 32, 1, 16), "scale": byte(3, 32, 1) // 64 + 126}),
}


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(3, 32, 32, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bmm(x.expand(3, *x.shape), self.up).sum(0)


class Changing(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.weight.mul_(2)
        return super().forward(input)


def layer(cls: type[nn.Linear] = nn.Linear) -> nn.Linear:
    return cls(32, 32, dtype=torch.float32)


def holding(module: Any, attribute: str, scheme: Scheme, parts: Mapping[str, torch.Tensor]) -> nn.Module:
    names = {what: attribute if what == "codes" else f"{attribute}_{what}" for what in parts}
    hold_stored(module, attribute, KeptWeight(scheme, tuple(names.items()), torch.float32), parts)
    return module


def values(model: nn.Module, attribute: str, parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a model, with the stored ones of each of its weights."""
    ends = {attribute if what == "codes" else f"{attribute}_{what}": part for what, part in parts.items()}
    return {name: ends.get(name.rpartition(".")[2], param) for name, param in model.named_parameters()}


def called(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The result of the model itself, with its stored tensors in memory."""
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        model.get_submodule(owner)._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)
    with torch.no_grad():
        return model(X)


def operators(graph: Graph) -> list[str]:
    return [str(node.op) for node in graph.nodes if isinstance(node, Call)]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_their_weights_where_they_are_read(name: str) -> None:
    scheme, parts = LAYERS[name]
    model = nn.Sequential(*(holding(layer(), "weight", scheme, parts) for _ in range(2)))
    graph = capture(model, (X,))
    assert [param.fqns[0] for param in graph.params] == [name for name, _ in model.named_parameters()]
    assert all(param.frozen == ("bias" not in param.name) for param in graph.params)
    tensors = values(model, "weight", parts)
    assert torch.equal(interpret(graph, [X], tensors).outputs[0], called(model, tensors))


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_compute_theirs_one_by_one(name: str) -> None:
    scheme, parts = EXPERTS[name]
    model = nn.Sequential(holding(Experts(), "up", scheme, parts))
    graph = capture(model, (X,))
    assert operators(graph)[-3:-2] == ["stagecut.higher_order.default"]
    tensors = values(model, "up", parts)
    assert torch.equal(interpret(graph, [X], tensors).outputs[0], called(model, tensors))


def test_a_formula_is_exported_once() -> None:
    """All weights of a kind have one, and one operator needs none."""
    scheme, parts = LAYERS["fp4, which has a table"]

    def model() -> nn.Module:
        return nn.Sequential(*(holding(layer(), "weight", scheme, parts) for _ in range(3)))

    with patch.object(formulas, "record", wraps=formulas.record) as record, patch.object(formulas, "_KNOWN", {}):
        capture(model(), (X,))
        capture(model(), (X,))
        capture(holding(layer(), "weight", *LAYERS["fp8"]), (X,))
    assert record.call_count == 1


def test_a_module_of_two_paths_has_both_names() -> None:
    scheme, parts = LAYERS["fp8"]
    shared = holding(layer(), "weight", scheme, parts)
    graph = capture(nn.Sequential(shared, shared), (X,))
    assert [param.fqns for param in graph.params if "scale" in param.name] == [("0.weight_scale", "1.weight_scale")]
    assert operators(graph).count("stagecut.dequantized.default") == 2


def test_weights_that_are_tied_stay_tied() -> None:
    first, second = (holding(layer(), "weight", *LAYERS["fp8"]) for _ in range(2))
    second._parameters.update({name: first._parameters[name] for name in ("weight", "weight_scale")})
    graph = capture(nn.Sequential(first, second), (X,))
    tied = [param.fqns for param in graph.params if "bias" not in param.name]
    assert tied == [("0.weight", "1.weight"), ("0.weight_scale", "1.weight_scale")]


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_holds_its_stored_tensors_again(fails: bool) -> None:
    model = nn.Sequential(holding(layer(), "weight", *LAYERS["fp8"]))
    held = [*model.named_parameters()]
    if fails:
        with pytest.raises(CaptureError):
            capture(model, (torch.zeros(2, 31),))
    else:
        capture(model, (X,))
    assert [*model.named_parameters()] == held


def test_a_model_that_changes_a_weight_is_recorded_with_the_stored_one() -> None:
    model = nn.Sequential(holding(layer(Changing), "weight", *LAYERS["fp8"]))
    graph = capture(model, (X,))
    assert [param.type.dtype for param in graph.params if param.fqns[0] == "0.weight"] == [torch.float8_e4m3fn]
    assert not graph.states
