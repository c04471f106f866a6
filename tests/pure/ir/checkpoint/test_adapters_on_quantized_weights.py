"""Adapters on weights that are quantized: merged into what these stand for, or kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.checkpoint import Checkpoint
from tests.support.weights.packed_weights import PACKED, Tensors, mxfp4

BASES = (
    "gptq, columns in any order",
    "awq",
    "fp8 in blocks",
    "4 bits packed",
    "int8 by channel",
    "nvfp4 of modelopt",
    "nf4",
    "int8 of bitsandbytes",
    "int4 of torchao",
)


def saved(folder: Path, settings: Mapping[str, object], tensors: Tensors) -> None:
    """A folder with a weight twice, as `x` and `y`, and LoRA of `x` beside it."""
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings}))
    other = {f"y{name.removeprefix('x')}": t.clone() for name, t in tensors.items()}
    save_file({n: t.contiguous() for n, t in (tensors | other).items()}, folder / "model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 6}')


def with_lora(folder: Path, weight: torch.Tensor, part: str, kept: bool) -> tuple[nn.ModuleDict, Checkpoint, Tensors]:
    """A model of both layers, its weights with the adapter, and the tensors of that."""
    rows, columns = weight.shape
    factors = {"A": torch.randn(2, columns), "B": torch.randn(rows, 2)}
    named = {f"base_model.model.{part}.lora_{side}.weight": t for side, t in factors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    model = nn.ModuleDict({name: nn.Linear(columns, rows, bias=False, device="meta") for name in "xy"})
    return model, Checkpoint.open(folder).adapted_by(Adapter.open(folder, kept)).for_model(model), factors


@pytest.mark.parametrize("kind", BASES)
def test_a_merged_adapter_leaves_other_weights_as_they_are_stored(kind: str, tmp_path: Path) -> None:
    settings, make = PACKED[kind]
    stored, weight = make()
    saved(tmp_path, settings, stored)
    model, checkpoint, factors = with_lora(tmp_path, weight, "x", kept=False)
    merged = weight.float() + factors["B"] @ factors["A"] * 3
    torch.testing.assert_close(checkpoint["x.weight"], merged)
    assert torch.equal(
        torch.cat([*checkpoint.tensors["x.weight"].blocks(torch.float32)]), checkpoint["x.weight"].view(-1)
    )
    held = checkpoint.held_by(model, as_stored=True)
    assert held.tensors["x.weight"] is checkpoint.tensors["x.weight"]
    assert held.tensors["y.weight"].dtype == next(t.dtype for t in stored.values())
    assert any("x.weight are dequantized while stages are written" in note for note in held.notes)


@pytest.mark.parametrize("kind", ["gptq, columns in any order", "fp8 in blocks", "nf4"])
def test_an_adapter_is_kept_beside_dequantized_weights(kind: str, tmp_path: Path) -> None:
    settings, make = PACKED[kind]
    stored, weight = make()
    saved(tmp_path, settings, stored)
    model, checkpoint, factors = with_lora(tmp_path, weight, "x", kept=True)
    held = checkpoint.held_by(model, as_stored=True)
    for name in "xy":
        torch.testing.assert_close(held[f"{name}.weight"], weight.float())
    assert torch.equal(held["x.lora_up"][1], factors["B"])
    assert any("the weights are dequantized while stages are written" in note for note in held.notes)


def test_a_merged_adapter_of_experts_in_mxfp4(tmp_path: Path) -> None:
    stored, weight = mxfp4()
    experts, rows, columns = weight.shape
    saved(tmp_path, {"quant_method": "mxfp4"}, {name.replace("weight", "up"): t for name, t in stored.items()})
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": ["x.up"]}'
    )
    down, up = torch.randn(2 * experts, columns), torch.randn(rows, 2 * experts)
    named = {"base_model.model.x.lora_A.weight": down, "base_model.model.x.lora_B.weight": up}
    save_file(named, tmp_path / "adapter_model.safetensors")
    model = nn.ModuleDict({n: nn.ParameterDict({"up": torch.empty(weight.shape, device="meta")}) for n in "xy"})
    checkpoint = Checkpoint.open(tmp_path).adapted_by(Adapter.open(tmp_path)).for_model(model)
    for expert in range(experts):
        product = up[:, expert::experts] @ down[2 * expert : 2 * expert + 2] * 3
        torch.testing.assert_close(checkpoint["x.up"][expert], weight[expert].float() + product)
    torch.testing.assert_close(checkpoint["y.up"], weight.float())
