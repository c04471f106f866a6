"""Stored weights of quantized layers in memory: side by side, row after row, with the values that they had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ir.quantized_linear.linear import quantized_linear, side_by_side
from runtime.manifest.manifest import HeldTensor, ModelNode, ProgramStage, Tensor
from runtime.stage.linear.quantized_layout import lay_out_quantized

SIZES = {"q": 16, "k": 8}


def layer(across: bool) -> nn.Module:
    """Two weights of 4 bits, by rows or, as GPTQ stores them, by columns."""
    draw = torch.Generator().manual_seed(0)
    module = nn.Module()
    for name, rows in SIZES.items():
        shapes = {"codes": (rows, 8), "scale": (rows, 2), "zeros": (rows // 8, 2)}
        for what, shape in shapes.items():
            made = torch.randint(-(2**31), 2**31, shape, generator=draw).to(torch.int32)
            made = torch.rand(shape, generator=draw) if what == "scale" else made
            made = made.t().contiguous() if across else made
            module.register_parameter(f"{name}_{what}", nn.Parameter(made, requires_grad=False))
        module.register_parameter(f"{name}_bias", nn.Parameter(torch.rand(rows, generator=draw), False))
    return module


def product(module: nn.Module, across: bool, x: torch.Tensor) -> torch.Tensor:
    parts = [[module.get_parameter(f"{name}_{what}") for name in SIZES] for what in ("codes", "scale", "zeros", "bias")]
    parts = [[p.t() if across and p.dim() == 2 else p for p in ps] for ps in parts]
    return quantized_linear(x, *parts, bits=4, added=0x11111111, step=[1, 32])


@pytest.mark.parametrize("across", [False, True])
def test_weights_of_one_product_lie_side_by_side(across: bool) -> None:
    module, x = layer(across), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    before, shapes = product(module, across, x), {n: p.shape for n, p in module.named_parameters()}
    held = {name: HeldTensor(name, str(p.dtype), tuple(p.shape)) for name, p in module.named_parameters()}
    reads = [f"{name}_{what}" for what in ("codes", "scale", "zeros", "bias") for name in SIZES]
    stored = [name for name in reads if not name.endswith("bias")] if across else []
    turned = [ModelNode("aten.t", (n,), (Tensor(f"{n}_t", "int32", ()),), False, "") for n in stored]
    given = tuple(f"{name}_t" if name in stored else name for name in reads)
    node = ModelNode("stagecut.quantized_linear", ("x", *given), (), False, "")
    entry = ProgramStage("stage_0.py", "Stage0", (), (), (), (), holds=held)
    lay_out_quantized(module, entry, [*turned, node])
    for what in ("codes", "scale", "zeros", "bias"):
        parts = [module.get_parameter(f"{name}_{what}") for name in SIZES]
        assert side_by_side([p.t() if across and p.dim() == 2 else p for p in parts]) is not None
    assert {n: p.shape for n, p in module.named_parameters()} == shapes
    groups = [p.t() if across else p for p in (module.get_parameter(f"{name}_scale") for name in SIZES)]
    assert {p.stride() for p in groups} == {(1, sum(SIZES.values()))}  # a group's scales lie side by side
    torch.testing.assert_close(product(module, across, x), before, rtol=0, atol=1e-5)


def test_scales_of_whole_weights_lie_side_by_side() -> None:
    """As in checkpoints that have a number for each weight, without dimensions."""
    module, x = nn.Module(), torch.arange(12.0).view(3, 4)  # whose products are exact
    for name in SIZES:
        codes = torch.arange(8 * 4).view(8, 4).to(torch.int8)
        module.register_parameter(f"{name}_codes", nn.Parameter(codes, requires_grad=False))
        module.register_parameter(f"{name}_scale", nn.Parameter(torch.tensor(0.5 if name == "q" else 0.25), False))
    names = [f"{name}_{what}" for what in ("codes", "scale") for name in SIZES]
    parts = [module.get_parameter(name) for name in names]
    before = quantized_linear(x, parts[:2], parts[2:], step=[8, 4])
    held = {name: HeldTensor(name, str(p.dtype), tuple(p.shape)) for name, p in module.named_parameters()}
    entry = ProgramStage("stage_0.py", "Stage0", (), (), (), (), holds=held)
    lay_out_quantized(module, entry, [ModelNode("stagecut.stored_linear", ("x", *names), (), False, "")])
    assert side_by_side([part.reshape(-1, 1) for part in parts[2:]]) is not None
    assert torch.equal(quantized_linear(x, parts[:2], parts[2:], step=[8, 4]), before)
