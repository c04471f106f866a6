"""Quantized weights: numbers packed here by hand, element by element, are what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from transformers.pytorch_utils import Conv1D

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import header_notes, read_checkpoint
from ir.checkpoint.quantized import dequantized
from ir.checkpoint.quantized.quantization import Quantization, quantization_of
from ir.checkpoint.tensors import Held
from ir.errors import SourceError

Tensors = dict[str, torch.Tensor]
R, C, GROUP = 16, 24, 8
GENERATOR = torch.Generator().manual_seed(0)


def integers(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=GENERATOR)


def scales(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return (torch.rand(shape, generator=GENERATOR) + 0.5).to(dtype)


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR).to(torch.float8_e4m3fn)


def words(numbers: torch.Tensor, bits: int, order: tuple[int, ...] = ()) -> torch.Tensor:
    """Pack unsigned numbers along the last dimension into 32-bit words, the first lowest unless `order` says."""
    if 32 % bits:  # a number may be in two words
        rows = [sum(int(number) << bits * i for i, number in enumerate(row)) for row in numbers]
        places = range(0, numbers.shape[1] * bits, 32)
        return torch.tensor([[row >> place & 0xFFFFFFFF for place in places] for row in rows]).to(torch.int32)
    count = 32 // bits
    out = torch.zeros(numbers.shape[0], numbers.shape[1] // count, dtype=torch.int64)
    for i, place in enumerate(order or range(count)):
        out |= numbers[:, place::count] << (bits * i)
    return out.to(torch.int32)


def each(rows: int, columns: int, value: object) -> torch.Tensor:
    """A weight element by element: `value(row, column)`."""
    out = torch.empty(rows, columns)
    for r, c in product(range(rows), range(columns)):
        out[r, c] = value(r, c)  # type: ignore[operator]
    return out


def by_blocks() -> tuple[Tensors, torch.Tensor]:
    q, s = fp8(R, C), scales(3, 5, dtype=torch.float32)  # blocks of 7 x 5, the last smaller
    return {"x.weight": q, "x.weight_scale_inv": s}, each(R, C, lambda r, c: q[r, c].float() * s[r // 7, c // 5])


def by_unnamed_blocks() -> tuple[Tensors, torch.Tensor]:
    """Blocks of 128 x 128, the last smaller, which other sizes would divide."""
    q, s = fp8(200, 130), scales(2, 2, dtype=torch.float32)
    return {"x.weight": q, "x.weight_scale_inv": s}, each(
        200, 130, lambda r, c: q[r, c].float() * s[r // 128, c // 128]
    )


def by_channel() -> tuple[Tensors, torch.Tensor]:
    q, s = integers(-128, 128, R, C).to(torch.int8), scales(R, 1)
    return {"x.weight": q, "x.weight_scale": s}, each(R, C, lambda r, c: q[r, c].half() * s[r, 0])


def packed(bits: int, ordered: bool = False) -> tuple[Tensors, torch.Tensor]:
    half, groups = 1 << (bits - 1), integers(0, 3, C) if ordered else torch.arange(C) // GROUP
    q, z, s = integers(-half, half, R, C), integers(-half, half, R, 3), scales(R, 3)
    stored = {
        "x.weight_packed": words(q + half, bits),
        "x.weight_zero_point": words((z + half).t(), bits).t(),
        "x.weight_scale": s,
        "x.weight_shape": torch.tensor([R, C]),
        "x.weight_g_idx": groups.int() if ordered else torch.full((C,), -1, dtype=torch.int32),
    }
    return stored, each(R, C, lambda r, c: (q[r, c] - z[r, groups[c]]).half() * s[r, groups[c]])


def gptq(less: int, ordered: bool, bits: int = 4) -> tuple[Tensors, torch.Tensor]:
    groups = torch.arange(C) // GROUP
    groups = groups.flip(0) if ordered else groups
    q, z, s = integers(0, 1 << bits, C, R), integers(1, 1 << bits, 3, R), scales(3, R)
    packed = {"x.qweight": words(q.t(), bits).t(), "x.qzeros": words(z - less, bits)}
    stored = {**packed, "x.scales": s, "x.g_idx": groups.int()}
    return stored, each(R, C, lambda r, c: (q[c, r] - z[groups[c], r]).half() * s[groups[c], r])


def unordered(size: int, less: int, bits: int = 4) -> tuple[Tensors, torch.Tensor]:
    """GPTQ's layout without the groups of columns, as AutoRound writes it."""
    groups = -(-C // size)
    q, z, s = integers(0, 1 << bits, C, R), integers(1, 1 << bits, groups, R), scales(groups, R)
    stored = {"x.qweight": words(q.t(), bits).t(), "x.qzeros": words(z - less, bits), "x.scales": s}
    return stored, each(R, C, lambda r, c: (q[c, r] - z[c // size, r]).half() * s[c // size, r])


def awq() -> tuple[Tensors, torch.Tensor]:
    q, z, s, order = integers(0, 16, C, R), integers(0, 16, 3, R), scales(3, R), (0, 2, 4, 6, 1, 3, 5, 7)
    stored = {"x.qweight": words(q, 4, order), "x.qzeros": words(z, 4, order), "x.scales": s}
    return stored, each(R, C, lambda r, c: (q[c, r] - z[c // GROUP, r]).half() * s[c // GROUP, r])


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


def signed(code: int) -> float:
    return E2M1[code & 7] * (-1 if code & 8 else 1)


def fp4(divided: bool) -> tuple[Tensors, torch.Tensor]:
    q, s, whole = integers(0, 16, R, 32), scales(R, 2, dtype=torch.float8_e4m3fn), torch.tensor([0.37])
    both = (q[:, 0::2] | q[:, 1::2] << 4).to(torch.uint8)
    names = ("x.weight_packed", "x.weight_global_scale") if divided else ("x.weight", "x.weight_scale_2")
    local = s.float() / whole if divided else s.float() * whole
    weight = each(R, 32, lambda r, c: signed(int(q[r, c])) * local[r, c // 16])
    stored = {names[0]: both, "x.weight_scale": s, names[1]: whole, "x.input_scale": torch.ones(1)}
    return stored, weight.bfloat16() if divided else weight


def mxfp4() -> tuple[Tensors, torch.Tensor]:
    codes = integers(0, 256, 2, R, 3, 16).to(torch.uint8)
    exponents = integers(120, 130, 2, R, 3).to(torch.uint8)
    return {"x.weight_blocks": codes, "x.weight_scales": exponents}, convert_moe_packed_tensors(codes, exponents)


def nf4() -> tuple[Tensors, torch.Tensor]:
    q, table = integers(0, 16, R * C), scales(16, dtype=torch.float32)
    fine, coarse, nested = (
        integers(0, 256, R * C // 8),
        scales(2, dtype=torch.float32),
        scales(256, dtype=torch.float32),
    )
    state = {"shape": [R, C], "dtype": "float32", "blocksize": 8, "nested_blocksize": 32, "nested_offset": 0.25}
    stored = {
        "x.weight": (q[0::2] << 4 | q[1::2]).to(torch.uint8).unsqueeze(1),
        "x.weight.absmax": fine.to(torch.uint8),
        "x.weight.quant_map": table,
        "x.weight.nested_absmax": coarse,
        "x.weight.nested_quant_map": nested,
        "x.weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    absmax = [nested[fine[b]] * coarse[b // 32] + 0.25 for b in range(R * C // 8)]
    return stored, each(R, C, lambda r, c: table[q[r * C + c]] * absmax[(r * C + c) // 8])


def int8_rows() -> tuple[Tensors, torch.Tensor]:
    q, s = integers(-127, 128, R, C).to(torch.int8), scales(R, dtype=torch.float32)
    stored = {"x.weight": q, "x.SCB": s, "x.weight_format": torch.tensor(0, dtype=torch.uint8)}
    return stored, q.float() * s[:, None] * 7.874015718698502e-3


def int4_of_torchao() -> tuple[Tensors, torch.Tensor]:
    q, s, z = (
        integers(-8, 8, R, C),
        scales(C // GROUP, R, dtype=torch.float32),
        scales(C // GROUP, R, dtype=torch.float32),
    )
    stored = {
        "x._weight_qdata": ((q[:, 0::2] & 15) | (q[:, 1::2] << 4)).to(torch.int8),
        "x._weight_scale": s,
        "x._weight_zero_point": z,
    }
    return stored, each(R, C, lambda r, c: q[r, c] * s[c // GROUP, r] + z[c // GROUP, r])


def int4_in_tiles(rows: int = R, columns: int = 256) -> tuple[Tensors, torch.Tensor]:
    """torchao's tiles of 8 rows and 128 columns, as the lanes of a GPU's warp read them; what is beyond is filler."""
    filled = -(-rows // 8) * 8
    q = integers(0, 16, filled, 256)
    both = scales(8, filled, 2, dtype=torch.bfloat16)
    codes = torch.zeros(filled // 8, 2, 32, 4, dtype=torch.int64)
    for tile, strip, lane, word in product(range(filled // 8), range(2), range(32), range(4)):
        first = strip * 128 + word * 32 + lane % 4 * 2
        for place, column in enumerate((0, 8, 16, 24, 1, 9, 17, 25)):
            codes[tile, strip, lane, word] |= q[tile * 8 + lane // 4, first + column] << (4 * place)
    stored = {"x._weight_qdata": codes.to(torch.int32), "x._weight_scale_and_zero": both}
    number = both.float()
    weight = each(rows, columns, lambda r, c: (q[r, c] - 8) * number[c // 32, r, 0] + number[c // 32, r, 1])
    return stored, weight.bfloat16()


CT: dict[str, object] = {"quant_method": "compressed-tensors"}


def int4_of_modelopt() -> tuple[Tensors, torch.Tensor]:
    """AWQ: two rows a byte, and inputs that are scaled before the product."""
    q, s, inputs = integers(-8, 8, R, C), scales(R, 3, dtype=torch.bfloat16), scales(C, dtype=torch.bfloat16)
    stored = {
        "x.weight": ((q[0::2] & 15) | ((q[1::2] & 15) << 4)).to(torch.uint8),
        "x.weight_scale": s,
        "x.pre_quant_scale": inputs,
    }
    return stored, each(R, C, lambda r, c: q[r, c] * s[r, c // GROUP].float() * inputs[c].float())


def int4_in_fp8_of_modelopt() -> tuple[Tensors, torch.Tensor]:
    """W4A8: what AWQ gives is rounded to FP8, as the kernel takes it."""
    stored, _ = int4_of_modelopt()
    inputs, whole = stored.pop("x.pre_quant_scale"), torch.tensor(0.013)
    plain = Quantization("modelopt", {"quant_algo": "W4A16_AWQ"}).weights({n: Held(t) for n, t in stored.items()})
    weight = plain[0].scheme.dequantize({what: part.read(part.dtype) for what, part in plain[0].parts.items()})
    rounded = (weight / whole).to(torch.float8_e4m3fn).float() * whole
    return {**stored, "x.weight_scale_2": whole, "x.pre_quant_scale": inputs}, rounded * inputs.float()


def smoothed() -> tuple[Tensors, torch.Tensor]:
    q, s, inputs = integers(-128, 128, R, C).to(torch.int8), scales(R, dtype=torch.float32), scales(C)
    stored = {"x.weight": q, "x.weight_scale": s, "x.pre_quant_scale": inputs}
    return stored, each(R, C, lambda r, c: q[r, c] * s[r] * inputs[c].float())


CASES: Mapping[str, tuple[dict[str, object], tuple[Tensors, torch.Tensor]]] = {
    "fp8 in blocks": ({"quant_method": "fp8", "weight_block_size": [7, 5]}, by_blocks()),
    "fp8 in blocks that no settings name": ({"quant_method": "fp8"}, by_unnamed_blocks()),
    "int8 by channel": (CT, by_channel()),
    "4 bits packed": (CT, packed(4)),
    "8 bits packed, columns in any order": (CT, packed(8, ordered=True)),
    "gptq": ({"quant_method": "gptq", "bits": 4}, gptq(1, ordered=False)),
    "gptq, a layer of other bits": ({"quant_method": "gptq", "bits": 4}, gptq(1, ordered=True, bits=8)),
    "gptq 2, columns in any order": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        gptq(0, ordered=True),
    ),
    "gptq of 3 bits": ({"quant_method": "gptq", "bits": 3}, gptq(1, ordered=True, bits=3)),
    "gptq 2 of 5 bits": (
        {"quant_method": "gptq", "bits": 5, "checkpoint_format": "gptq_v2"},
        gptq(0, ordered=True, bits=5),
    ),
    "3 bits packed": ({**CT, "config_groups": {"a": {"weights": {"num_bits": 3}}}}, packed(3)),
    "7 bits packed, columns in any order": (
        {**CT, "config_groups": {"a": {"weights": {"num_bits": 7}}}},
        packed(7, ordered=True),
    ),
    "groups that do not divide the columns": (
        {"quant_method": "gptq", "bits": 4, "group_size": 16},
        unordered(16, less=1),
    ),
    "auto-round": ({"quant_method": "intel/auto-round", "bits": 4, "group_size": GROUP}, unordered(GROUP, less=0)),
    "auto-round, zeros less one": (
        {"quant_method": "auto-round", "bits": 8, "group_size": GROUP, "packing_format": "auto_round:auto_gptq"},
        unordered(GROUP, less=1, bits=8),
    ),
    "auto-round, awq": ({"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_awq"}, awq()),
    "awq": ({"quant_method": "awq", "version": "gemm"}, awq()),
    "nvfp4 of modelopt": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, fp4(divided=False)),
    "int4 of modelopt": ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, int4_of_modelopt()),
    "int4 in fp8 of modelopt": ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, int4_in_fp8_of_modelopt()),
    "nvfp4 in fp8 of modelopt": ({"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8"}, fp4(divided=False)),
    "smoothquant of modelopt": ({"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"}, smoothed()),
    "nvfp4 of compressed-tensors": (CT, fp4(divided=True)),
    "mxfp4": ({"quant_method": "mxfp4"}, mxfp4()),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, nf4()),
    "int4 of torchao": ({"quant_method": "torchao"}, int4_of_torchao()),
    "int4 of torchao in tiles": ({"quant_method": "torchao"}, int4_in_tiles()),
    "int8 of bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, int8_rows()),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [64, 1 << 22])
def test_a_weight_is_what_was_packed(name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, (stored, expected) = CASES[name]
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


def swizzled(scale: torch.Tensor) -> torch.Tensor:
    """Scales [rows, groups] in tiles of 128 rows and 4 groups, element by element."""
    down, across = -(-scale.shape[0] // 128), -(-scale.shape[1] // 4)
    out = torch.zeros(down * across, 32, 16, dtype=torch.uint8)
    for r, g in product(*map(range, scale.shape)):
        out[r // 128 * across + g // 4, r % 32, r % 128 // 32 * 4 + g % 4] = scale.view(torch.uint8)[r, g]
    return out.reshape(32 * down, 16 * across).view(scale.dtype)


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


def test_scales_of_torchao_in_an_order_that_is_not_said_are_refused() -> None:
    stored = {"x._weight_qdata": fp8(R, 32), "x._weight_scale": scales(R, 1).to(torch.float8_e8m0fnu)}
    with pytest.raises(SourceError, match=r"scales of a byte are read where the header of their file says the order"):
        Quantization("torchao", {}).weights({name: Held(t) for name, t in stored.items()})
    said = json.dumps({"_data": {"is_swizzled_scales": True}}).encode()
    stored = {name: t.unsqueeze(0) for name, t in stored.items()}
    stored["x._weight_header"] = torch.tensor(list(said), dtype=torch.uint8)
    with pytest.raises(SourceError, match=r"torchao's weights of experts with swizzled scales are not read; save the"):
        Quantization("torchao", {}).weights({name: Held(t) for name, t in stored.items()})


@pytest.mark.parametrize(
    ("said", "complaint"),
    [({"is_swizzled_scales": True}, "block_size=None"), ({"shape": ["?", 1]}, r"shape=\['\?', 1\]")],
)
def test_attributes_of_torchao_that_are_no_numbers_are_refused(said: dict[str, object], complaint: str) -> None:
    stored = {"x._weight_qdata": fp8(R, 32), "x._weight_scale": scales(R, 1).to(torch.float8_e8m0fnu)}
    stored = int4_in_tiles()[0] if "shape" in said else stored
    stored["x._weight_header"] = torch.tensor(list(json.dumps({"_data": said}).encode()), dtype=torch.uint8)
    with pytest.raises(SourceError, match=f"the header of a file says {complaint} of a weight of torchao's; save"):
        Quantization("torchao", {}).weights({name: Held(t) for name, t in stored.items()})


def test_a_note_of_a_header_that_is_no_text_is_none(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1)}, file, {"x.weight": "1234", "y.weight": "y"})
    file.write_bytes(file.read_bytes().replace(b'"1234"', b" 1234 "))
    assert header_notes(file) == {"y.weight": "y"}


def test_kinds_of_torchao_say_whether_activations_are_quantized() -> None:
    for name, dynamic in (("Int8DynamicActivationInt8WeightConfig", True), ("Int8WeightOnlyConfig", False)):
        assert Quantization("torchao", {"quant_type": {"default": {"_type": name}}}).of_activations({}) == dynamic


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


REFUSED: Mapping[str, tuple[str, dict[str, object], str]] = {
    "an unknown method": ("aqlm", {}, "weights quantized by aqlm are not read, those of fp8, fbgemm_fp8, modelopt, "),
    "16 bits": ("gptq", {"bits": 16}, "GPTQ of 16 bits as gptq is not read; 2 to 8 bits as gptq or gptq_v2 are"),
    "auto-round with activations": (
        "auto-round",
        {"bits": 4, "act_bits": 8},
        "AutoRound's weights of int, or for activations of 8 bits, are not read; export the model as int, for",
    ),
    "fp6": (
        "compressed-tensors",
        {"format": "mxfp6-pack-quantized"},
        "the format mxfp6-pack-quantized is not read; save the model as mxfp8",
    ),
    "settings of another kind": (
        "gptq",
        {"bits": "four"},
        "the settings of gptq are not as it writes them (ValueError: invalid literal",
    ),
    "a block of one size": ("fp8", {"weight_block_size": [128]}, "the settings of fp8 are not as it writes them"),
    "groups in a list": ("compressed-tensors", {"config_groups": [1]}, "the settings of compressed-tensors are not as"),
    "gemv": ("awq", {"version": "GEMV"}, "AWQ in the format gemv is not read, of 4 bits in gemm it is"),
    "2 bits of modelopt": (
        "modelopt",
        {"quant_algo": "W2A16"},
        "ModelOpt's W2A16 is not read; export the model as FP8 or NVFP4, or unq",
    ),
    "one layer of modelopt": (
        "modelopt",
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"x": {"quant_algo": "NVFP4_SVD"}}},
        "ModelOpt's NVFP4_SVD is not read",
    ),
    "rotations": (
        "compressed-tensors",
        {"transform_config": {"config_groups": {"R1": {"type": "hadamard"}}}},
        "weights between rotations (`transform_config`) are not read; save the model dequantized",
    ),
    "sparse": ("compressed-tensors", {"format": "marlin-24"}, "the format marlin-24 is not read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_form_that_is_not_read_is_named(what: str) -> None:
    method, settings, message = REFUSED[what]
    with pytest.raises(SourceError) as error:
        Quantization(method, settings).weights({})
    assert message in str(error.value)


def test_a_layer_in_gptq_of_other_bits_is_refused() -> None:
    stored = {"x.qweight": torch.ones(9, 64), "x.qzeros": torch.ones(1, 18), "x.scales": torch.ones(1, 64)}  # 9 bits
    with pytest.raises(SourceError, match="layers in GPTQ are read if each has 2 to 8 bits"):
        Quantization("gptq", {"bits": 4}).weights({name: Held(t) for name, t in stored.items()})


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


def test_blocks_of_two_sizes_that_go_with_one_weight_are_refused() -> None:
    stored = {"x.weight": Held(fp8(R, C)), "x.weight_scale": Held(scales(2, 3))}
    with pytest.raises(SourceError, match="blocks of 10 x 10 and 11 x 11 go with one weight alike; save the model deq"):
        blocks_of(10, 11).weights(stored)


def test_zeros_between_values_that_are_left_out_are_refused() -> None:
    stored = {"x.compressed": Held(scales(9)), "x.bitmask": Held(torch.ones(R, 3, dtype=torch.uint8))}
    with pytest.raises(SourceError, match=r"weights without their zeros \(sparse-bitmask\) are not read; save the mod"):
        Quantization("compressed-tensors", {}).weights(stored)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_layers_whose_weight_lies_across_are_quantized_as_linear_ones(prefix: str) -> None:
    """bitsandbytes, GPTQ and AWQ put layers of theirs in the place of a Conv1D, as GPT-2 has it."""
    stored, expected = int8_rows()
    model = nn.ModuleDict({"x": Conv1D(R, C)})
    layers = {f"{path}.weight": layer for path, layer in model.named_modules()}
    held = {name.replace("x.", f"{prefix}x."): Held(tensor) for name, tensor in stored.items()}
    table = Quantization("bitsandbytes", {}).dequantized(held, torch.float32, layers)
    assert torch.equal(table[f"{prefix}x.weight"].read(torch.float32), expected.t())


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    """GPTQ's tensors of a weight, with one of them changed."""
    stored, _ = gptq(1, ordered=True)
    return {**stored, f"x.{name}": change(stored[f"x.{name}"])}


@pytest.mark.parametrize(
    ("method", "stored", "why"),
    [
        ("gptq", changed("scales", lambda scale: scale[:, :-1]), r"RuntimeError: .*"),
        ("gptq", changed("g_idx", lambda group: group + 5), r"ValueError: g_idx names group 7 of 3"),
        ("awq", gptq(1, ordered=True)[0], r"RuntimeError: .*"),
        (
            "bitsandbytes",
            nf4()[0] | {"x.weight.quant_state.bitsandbytes__nf4": torch.tensor([123], dtype=torch.uint8)},
            r"JSONDecodeError: .*",
        ),
        (
            "fp8",
            {"x.weight": fp8(R, C), "x.weight_scale_inv": scales(5, 7)},
            r"ValueError: scales \[5, 7\] of codes \[16, 24\] in blocks of \(7, 5\)",
        ),
        (
            "modelopt",
            {"x.weight": fp8(R, C), "x.weight_scale": scales(3, 5)},
            r"ValueError: scales \[3, 5\] of codes \[16, 24\]",
        ),
    ],
)
def test_tensors_that_do_not_go_together_are_named(method: str, stored: Tensors, why: str) -> None:
    settings = {"weight_block_size": [7, 5], "quant_algo": "FP8"}
    with pytest.raises(SourceError, match=rf"x.weight is not stored as its quantization has it \({why}\); fetch the f"):
        Quantization(method, settings).dequantized({n: Held(t) for n, t in stored.items()}, torch.float32)


def test_a_part_of_low_rank_is_refused() -> None:
    stored = {"x.weight": fp8(R, C), "x.weight_scale": scales(R), "x.svdquant_lora_a": scales(2, C)}
    with pytest.raises(SourceError, match=r"ModelOpt's weights with a part of low rank are not read"):
        Quantization("modelopt", {"quant_algo": "NVFP4"}).weights({name: Held(t) for name, t in stored.items()})


def test_scales_of_inputs_without_a_place_are_refused(tmp_path: Path) -> None:
    """AutoAWQ scales what some activations return; a model without these scales computes something else."""
    stored = {"act.scales": scales(C), "0.weight": fp8(R, C), "0.weight_scale_inv": scales(1)}
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(SourceError, match=r"has act.scales, by which fp8 scales what layers take or return, and which"):
        Checkpoint.open(tmp_path).for_model(nn.Sequential(nn.Linear(C, R, bias=False)))


@pytest.mark.parametrize("method", ["fp8", "compressed-tensors", "modelopt"])
def test_codes_without_their_scale_are_named(method: str) -> None:
    stored = {"x.weight": Held(fp8(R, C)), "y.weight": Held(scales(R, C))}
    with pytest.raises(SourceError, match=rf"x.weight is float8_e4m3fn without the scale that {method} has beside it"):
        Quantization(method, {"quant_algo": "FP8"}).dequantized(stored, torch.float32)
