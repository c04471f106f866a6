"""Quantized weights: numbers packed by hand, element by element, are what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import header_notes, read_checkpoint
from ir.checkpoint.quantized import dequantized
from ir.checkpoint.quantized.quantization import Quantization, quantization_of
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from tests.support.seeds import made_once
from tests.support.weights.packed_weights import (
    PACKED,
    C,
    R,
    Tensors,
    each,
    fp8,
    int4_in_tiles,
    int8_rows,
    integers,
    nf4,
    scales,
    signed,
    swizzled,
)


@made_once
def made(name: str) -> tuple[Tensors, torch.Tensor]:
    """The tensors of a case and the weight that they are, made once for all tests of it."""
    return PACKED[name][1]()


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("block", [64, 1 << 22])
def test_a_weight_is_what_was_packed(name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (settings, _), (stored, expected) = PACKED[name], made(name)
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
    monkeypatch.setattr(dequantized, "BLOCK_ELEMENTS", block)
    quantization = quantization_of(tmp_path)
    assert quantization is not None
    table = quantization.dequantized(read_checkpoint(tmp_path)[""], torch.float32)
    assert set(table) == {"x.weight"}
    weight = table["x.weight"]
    assert weight.shape == tuple(expected.shape)
    assert torch.equal(weight.read(torch.float32), expected.float())
    assert torch.equal(torch.cat(list(weight.blocks(torch.float32))), expected.float().flatten())


@pytest.mark.parametrize("block", [64, 1 << 22])
def test_what_fills_up_tiles_is_left_out(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weight's own shape is in the header of the file, as torchao writes it."""
    stored, expected = int4_in_tiles(13, 200)
    notes = {"x.weight": json.dumps({"_type": "Int4TilePackedTo4dTensor", "_data": {"shape": [13, 200]}})}
    notes |= {
        "tensor_names": '["x.weight"]',
        "y.weight": '{"_type": "Tensor"}',
        "z.weight": '{"_data": {"shape": "?"}}',
    }
    save_file({key: t.contiguous() for key, t in stored.items()}, tmp_path / "model.safetensors", notes)
    monkeypatch.setattr(dequantized, "BLOCK_ELEMENTS", block)
    weight = Quantization("torchao", {}).dequantized(read_checkpoint(tmp_path)[""], torch.float32)["x.weight"]
    assert weight.shape == (13, 200)
    assert torch.equal(weight.read(torch.float32), expected.float())
    assert torch.equal(torch.cat(list(weight.blocks(torch.float32))), expected.float().flatten())


@pytest.mark.parametrize("order", [True, False])
def test_scales_of_torchao_are_read_in_the_order_that_the_header_says(order: bool, tmp_path: Path) -> None:
    q, s = fp8(130, 160), scales(130, 5).to(torch.float8_e8m0fnu)
    stored = {"x._weight_qdata": q, "x._weight_scale": swizzled(s) if order else s}
    said = {"block_size": 32, "is_swizzled_scales": order}
    save_file(stored, tmp_path / "model.safetensors", {"x.weight": json.dumps({"_type": "MXTensor", "_data": said})})
    weight = Quantization("torchao", {}).dequantized(read_checkpoint(tmp_path)[""], torch.float32)["x.weight"]
    expected = q.float() * s.float().repeat_interleave(32, 1)
    assert torch.equal(weight.read(torch.float32), expected)
    assert torch.equal(torch.cat(list(weight.blocks(torch.float32))), expected.flatten())


@pytest.mark.parametrize("form", [nf4, int8_rows])
def test_a_state_dict_of_bitsandbytes_is_known_by_its_names(
    form: Callable[[], tuple[Tensors, torch.Tensor]], tmp_path: Path
) -> None:
    stored, expected = form()
    torch.save(stored, tmp_path / "c.pt")
    model = nn.ModuleDict({"x": nn.Linear(expected.shape[1], expected.shape[0], bias=False)})
    found = Checkpoint.open(tmp_path / "c.pt").for_model(model)
    torch.testing.assert_close(found["x.weight"], expected)


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("x.W_q", "HQQ's weights are read with tensors beside them that say their bits and shape"),
        ("x.weight._data", "weights quantized by quanto are not read, those of"),
    ],
)
def test_a_state_dict_of_a_method_that_is_not_read_is_named(part: str, why: str, tmp_path: Path) -> None:
    torch.save({part: torch.zeros(2, 2, dtype=torch.uint8)}, tmp_path / "c.pt")
    with pytest.raises(SourceError, match=rf"c.pt: ({why})"):
        Checkpoint.open(tmp_path / "c.pt").for_model(nn.ModuleDict({"x": nn.Linear(2, 2)}))


@pytest.mark.parametrize("name", ["W_q", "_data", "SCB"])
def test_a_weight_of_a_model_that_is_named_as_codes_are_is_read(name: str, tmp_path: Path) -> None:
    """As those of attention written by hand are."""
    weight = torch.ones(2, 2, dtype=torch.bfloat16)
    torch.save({f"x.{name}": weight, "x.weight": weight}, tmp_path / "c.pt")
    model = nn.ModuleDict({"x": nn.ParameterDict({name: torch.zeros(2, 2), "weight": torch.zeros(2, 2)})})
    found = Checkpoint.open(tmp_path / "c.pt").for_model(model)
    assert torch.equal(found[f"x.{name}"], weight)


def test_nvfp4_of_torchao_has_one_scale_more(tmp_path: Path) -> None:
    """The scales of blocks lie in tiles; the one of the tensor is multiplied with them."""
    codes, s, whole = integers(0, 256, R, 16).to(torch.uint8), scales(R, 2).to(torch.float8_e4m3fn), torch.tensor(0.3)
    stored = {"x._weight_qdata": codes, "x._weight_scale": swizzled(s), "x._weight_per_tensor_scale": whole}
    said = {"x.weight": json.dumps({"_type": "NVFP4Tensor", "_data": {"block_size": 16, "is_swizzled_scales": True}})}
    save_file(stored, tmp_path / "model.safetensors", said)
    weight = Quantization("torchao", {}).dequantized(read_checkpoint(tmp_path)[""], torch.float32)["x.weight"]
    number = [[signed(int(byte) >> shift & 15) for byte in row for shift in (0, 4)] for row in codes]
    expected = torch.tensor(number) * (s.float() * whole).repeat_interleave(16, 1)
    assert torch.equal(weight.read(torch.float32), expected)


def test_a_note_of_a_header_that_is_no_text_is_none(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, file, {"x.weight": "1234", "y.weight": "y"})
    file.write_bytes(file.read_bytes().replace(b'"1234"', b" 1234 "))
    assert header_notes(file) == {"y.weight": "y"}


def test_kinds_of_torchao_say_whether_activations_are_quantized() -> None:
    for name, dynamic in (("Int8DynamicActivationInt8WeightConfig", True), ("Int8WeightOnlyConfig", False)):
        assert Quantization("torchao", {"quant_type": {"default": {"_type": name}}}).of_activations({}) == dynamic


@pytest.mark.parametrize("method", ["w8a8-fp8", "w8a8-int8"])
def test_methods_that_always_quantize_activations(method: str) -> None:
    assert Quantization(method, {}).of_activations({})
    assert not Quantization("blockwise-int8", {}).of_activations({})


def test_memory_is_that_of_a_block_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantized, "BLOCK_ELEMENTS", 2 * C)
    save_file({"x.weight": fp8(R, C), "x.weight_scale_inv": scales(R, 1)}, tmp_path / "model.safetensors")
    table = Quantization("fp8", {}).dequantized(read_checkpoint(tmp_path)[""], torch.float32)
    assert [len(block) for block in table["x.weight"].blocks(torch.float32)] == [2 * C] * (R // 2)


SIDE_FILES = {
    "hf_quant_config.json": ({"quantization": {"quant_algo": "FP8"}}, "modelopt"),
    "config.json": ({"quantization": {"group_size": 64}, "quantization_config": {"group_size": 64}}, "mlx"),
    "quantize_config.json": ({"bits": 4, "group_size": 128}, "gptq"),
}


@pytest.mark.parametrize("name", SIDE_FILES)
def test_a_file_beside_the_configuration_names_the_method(name: str, tmp_path: Path) -> None:
    content, method = SIDE_FILES[name]
    (tmp_path / name).write_text(json.dumps(content))
    assert quantization_of(tmp_path / "model.safetensors") == Quantization(
        method, content.get("quantization", {"quant_method": method, **content})
    )


def blocks_of(*sizes: int) -> Quantization:
    groups = {str(size): {"weights": {"block_structure": [size, size]}} for size in sizes}
    return Quantization("compressed-tensors", {"config_groups": groups})


def test_each_weight_has_the_blocks_that_go_with_its_scales() -> None:
    """Of two sizes of blocks in the settings, neither of which divides the weights."""
    q, coarse, fine = fp8(R, C), scales(2, 3), scales(4, 5)
    stored = {"x.weight": q, "x.weight_scale": coarse, "y.weight": q, "y.weight_scale": fine}
    table = blocks_of(10, 5).dequantized({name: Held(t) for name, t in stored.items()}, torch.float32)
    for name, size, scale in (("x", 10, coarse), ("y", 5, fine)):
        expected = each(R, C, lambda r, c, size=size, scale=scale: q[r, c].half() * scale[r // size, c // size])
        assert torch.equal(table[f"{name}.weight"].read(torch.float32), expected)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_layers_whose_weight_lies_across_are_quantized_as_linear_ones(prefix: str) -> None:
    """bitsandbytes, GPTQ and AWQ put layers of theirs in the place of a Conv1D, as GPT-2 has it."""
    stored, expected = int8_rows()
    model = nn.ModuleDict({"x": Conv1D(R, C)})
    layers = {f"{path}.weight": layer for path, layer in model.named_modules()}
    held = {name.replace("x.", f"{prefix}x."): Held(tensor) for name, tensor in stored.items()}
    table = Quantization("bitsandbytes", {}).dequantized(held, torch.float32, layers)
    assert torch.equal(table[f"{prefix}x.weight"].read(torch.float32), expected.t())
