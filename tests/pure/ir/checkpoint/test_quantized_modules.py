"""Modules over stored tensors have the weight that dequantizing gives, at each use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from ir.capture.kept.fingerprint import fingerprint
from ir.checkpoint.mosaic import Mosaic
from ir.checkpoint.quantized.dequantized import Dequantized
from ir.checkpoint.quantized.kept import as_one_formula, keep_stored
from ir.checkpoint.quantized.packed import Awq, Gptq, PackedRows
from ir.checkpoint.quantized.scaled import Scaled
from ir.checkpoint.quantized.scheme import Scheme
from ir.checkpoint.tensors import Held, Tensorlike


def words(*shape: int) -> torch.Tensor:
    return torch.randint(-(2**31), 2**31, shape, generator=torch.Generator().manual_seed(sum(shape))).to(torch.int32)


def fp8(*shape: int) -> torch.Tensor:
    return torch.linspace(-2, 2, shape[0] * shape[1]).view(shape).to(torch.float8_e4m3fn)


def numbers(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) + 0.5


WEIGHTS: Mapping[str, tuple[Scheme, dict[str, torch.Tensor]]] = {  # each of 16 rows and 24 columns
    "blocks": (Scaled(block=(8, 8)), {"codes": fp8(16, 24), "scale": numbers(2, 3)}),
    "tensor": (Scaled(), {"codes": fp8(16, 24), "scale": torch.tensor(0.7)}),
    "packed": (PackedRows(4, 24), {"codes": words(16, 3), "scale": numbers(16, 3), "zeros": words(2, 3)}),
    "gptq": (Gptq(4), {"codes": words(3, 16), "scale": numbers(3, 16), "zeros": words(3, 2)}),
    "awq": (Awq(), {"codes": words(24, 2), "scale": numbers(3, 16), "zeros": words(3, 2)}),
}


def stored(name: str) -> Dequantized:
    scheme, parts = WEIGHTS[name]
    return Dequantized(scheme, {what: Held(tensor) for what, tensor in parts.items()}, torch.float32)


def filled(model: nn.Module, tensors: Mapping[str, Tensorlike]) -> None:
    """Give a model its tensors, all of which it must have a place for, in their own dtypes."""
    assert {n: p.dtype for n, p in model.named_parameters()} == {n: t.dtype for n, t in tensors.items()}
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        value = nn.Parameter(tensor.read(tensor.dtype), requires_grad=False)
        model.get_submodule(owner)._parameters[attribute] = value


class Experts(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(shape))


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_linear_layer_computes_its_weight_from_what_is_stored(name: str) -> None:
    model = nn.Sequential(nn.Linear(24, 16))
    tensors = keep_stored(model, {"0.weight": stored(name), "0.bias": Held(torch.ones(16))})
    filled(model, tensors)
    assert {key.removeprefix("0.weight").removeprefix("_") for key in tensors} == {"", "0.bias", *WEIGHTS[name][1]} - {
        "codes"
    }
    weight: Any = model[0].weight
    assert torch.equal(weight, stored(name).read(torch.float32))
    assert torch.equal(model(torch.eye(24))[3], weight[:, 3] + 1)


@pytest.mark.parametrize("name", sorted({*WEIGHTS} - {"tensor"}))
def test_experts_are_joined_as_they_are_stored(name: str) -> None:
    gate_and_up = [Mosaic.stacked([stored(name)] * 3, 0) for _ in range(2)]
    merged = Mosaic.concatenated(gate_and_up, 1)
    model = Experts(3, 32, 24)
    tensors = keep_stored(model, {"up": merged})
    filled(model, tensors)
    assert torch.equal(model.up, merged.read(torch.float32))


def test_a_scale_for_each_expert() -> None:
    down = Mosaic.stacked([stored("tensor")] * 3, 0)
    model = Experts(3, 16, 24)
    filled(model, keep_stored(model, {"up": down}))
    assert torch.equal(model.up, down.read(torch.float32))


def test_weights_that_do_not_go_together_stay_dequantized() -> None:
    tensor, blocks = stored("tensor"), stored("blocks")
    apart: list[Any] = [
        Mosaic.concatenated([tensor, tensor], 0),  # two scales for one tensor
        Mosaic.concatenated([blocks, Held(torch.ones(2, 24))], 0),
        Mosaic.concatenated([blocks, stored("gptq")], 0),
        Mosaic.concatenated([blocks, blocks], 1),
    ]
    assert [as_one_formula(weight) for weight in apart] == [None] * 4
    model = Experts(*apart[0].shape)
    assert keep_stored(model, {"up": apart[0]}) == {"up": apart[0]}


def test_graphs_of_two_schemes_are_not_taken_for_each_other() -> None:
    digests = set[str | None]()
    for scheme in (Gptq(4), Gptq(4, zeros_less_one=False)):
        model = nn.Sequential(nn.Linear(24, 16, bias=False))
        keep_stored(model, {"0.weight": Dequantized(scheme, stored("gptq").parts, torch.float32)})
        digests.add(fingerprint(model, ()))
    assert None not in digests
    assert len(digests) == 2


def test_a_weight_that_two_modules_share_stays_dequantized() -> None:
    model = nn.Sequential(nn.Linear(24, 16), nn.Linear(24, 16))
    model[1].weight = model[0].weight
    weight = stored("blocks")
    assert keep_stored(model, {"0.weight": weight, "1.weight": weight}) == {"0.weight": weight, "1.weight": weight}
