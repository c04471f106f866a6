"""Weights that stages cannot hold are named before anything is recorded."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from ir.capture import capture
from ir.capture.holdable import require_holdable
from ir.errors import CaptureError


def two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def offloaded(*hooks: object) -> nn.Module:
    model = two()
    hooked: Any = model[1]
    hooked._hf_hook = SimpleNamespace(hooks=hooks)
    return model


class Packed(nn.Parameter):
    """A weight with what is needed to unpack it beside it, as bitsandbytes has it."""

    quant_state = "nf4"


def with_weight(weight: nn.Parameter) -> nn.Module:
    model = two()
    model[1].weight = weight
    return model


HALVES = TwoTensor(torch.ones(2, 2), torch.ones(2, 2))
UNHELD = {
    "offloaded": (
        offloaded(SimpleNamespace(offload=True)),
        "accelerate offloads the weights of 1 until it is called; load",
    ),
    "packed": (
        with_weight(Packed(torch.ones(2, 2))),
        "1.weight is a quantized tensor (Packed), which stages cannot hold; cut",
    ),
    "a subclass": (
        with_weight(nn.Parameter(HALVES)),
        "1.weight is a TwoTensor of torch, which stages cannot hold; cut",
    ),
    "lazy": (
        nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)),
        "1.weight is not initialized yet, which stages cannot hold; run",
    ),
}


@pytest.mark.parametrize("what", UNHELD)
def test_a_weight_that_stages_cannot_hold(what: str) -> None:
    model, message = UNHELD[what]
    with pytest.raises(CaptureError) as raised:
        capture(model, (torch.ones(1, 2),))
    assert str(raised.value).startswith(message)


def test_a_module_quantized_for_cpus() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's quantization moves elsewhere
        model = torch.ao.quantization.quantize_dynamic(two(), {nn.Linear})
    with pytest.raises(
        CaptureError, match=r"^0\._packed_params\._packed_params holds packed weights \(LinearPackedParams"
    ):
        require_holdable(model)


def test_a_hook_that_brings_nothing_is_no_matter() -> None:
    require_holdable(offloaded(SimpleNamespace(offload=False), SimpleNamespace()))


class Reads(nn.Module):
    """Adds a number that is made of a tensor of any dtype."""

    held: torch.Tensor

    def __init__(self, held: torch.Tensor | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("held", held)

    def forward(self, x: torch.Tensor, given: torch.Tensor | None = None) -> torch.Tensor:
        read = torch.tensor([2j], dtype=torch.complex128) if given is None and self.held is None else given
        read = self.held if read is None else read
        return self.layer(x) + (read.real if read.is_complex() else read.view(torch.uint8)).sum()


BYTES = torch.ones(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
NOT_STORED = {
    "a wide complex buffer": (
        Reads(torch.ones(2, dtype=torch.complex128)),
        (),
        "held is complex128, which safetensors, the format of the stages' weights, lacks; keep its real and imaginary",
    ),
    "a buffer of halves of bytes": (Reads(BYTES), (), "held is float4_e2m1fn_x2, which safetensors, the format of"),
    "a constant": (Reads(), (), "a tensor of forward, in the model ("),
    "an input": (
        Reads(),
        (BYTES,),
        "the example input `given` is float4_e2m1fn_x2; pass its bytes, tensor.view(torch.",
    ),
}


def test_a_buffer_without_values() -> None:
    """As where a whole model is made on the meta device."""
    with torch.device("meta"):
        model = Reads(torch.ones(2))
    with pytest.raises(
        CaptureError, match="held has no values, as it is on the meta device, where only parameters may be"
    ):
        capture(model, (torch.ones(1, 2),))


@pytest.mark.parametrize("what", NOT_STORED)
def test_a_dtype_that_files_and_calls_lack(what: str) -> None:
    model, given, message = NOT_STORED[what]
    with pytest.raises(CaptureError) as raised:
        capture(model, (torch.ones(1, 2), *given))
    assert str(raised.value).startswith(message)
