"""Quantized weights that are packed here by hand, element by element, each with the weight that it stands for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from ir.checkpoint.quantized.quantization import Quantization
from ir.checkpoint.tensors import Held

Tensors = dict[str, torch.Tensor]
R, C, GROUP = 16, 24, 8


def integers(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.randint(low, high, shape)


def scales(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return (torch.rand(shape) + 0.5).to(dtype)


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(torch.float8_e4m3fn)


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


def int4_of_quark() -> tuple[Tensors, torch.Tensor]:
    q, z, s, order = integers(-8, 8, C, R), integers(-8, 8, 3, R), scales(3, R), (0, 2, 4, 6, 1, 3, 5, 7)
    stored = {"x.weight": words(q & 15, 4, order), "x.weight_zero_point": words(z & 15, 4, order), "x.weight_scale": s}
    return stored, each(R, C, lambda r, c: (q[c, r] - z[c // GROUP, r]).half() * s[c // GROUP, r])


def of_hqq(bits: int, columns: bool) -> tuple[Tensors, torch.Tensor]:
    """Groups in rows or in columns of a matrix, whose first rows are in the highest bits."""
    groups = R * C // GROUP
    shape, each_group = ((GROUP, groups), (1, groups)) if columns else ((groups, GROUP), (groups, 1))
    q, s, z = integers(0, 1 << bits, *shape), scales(*each_group), scales(*each_group)
    count = 10 if bits == 3 else 8 // bits
    filled = torch.cat([q, torch.zeros(-len(q) % count, q.shape[1], dtype=q.dtype)]).view(count, -1, q.shape[1])
    packed_rows = sum(rows << bits * (count - 1 - i) for i, rows in enumerate(filled))
    stored = {"x.W_q": torch.as_tensor(packed_rows).to(torch.int32 if bits == 3 else torch.uint8)}
    said = {"nbits": bits, "axis": int(not columns), "group_size": GROUP, "quant_scale": 0, "view_as_float": 0}
    stored |= {f"x.{name}": torch.tensor(value, dtype=torch.int32) for name, value in said.items()}
    stored |= {"x.scale": s, "x.zero": z, "x.shape": torch.tensor([R, C])}
    return stored, ((q.half() - z) * s).view(R, C)


def of_quark(dtype: str, scheme: str) -> dict[str, object]:
    """The settings of Quark for weights of a dtype, scaled in a way."""
    return {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": dtype, "qscheme": scheme}}}


def rows_of_fp8() -> tuple[Tensors, torch.Tensor]:
    q, s = fp8(R, C), scales(R, dtype=torch.float32)
    return {"x.weight": q, "x.weight_scale": s}, each(R, C, lambda r, c: q[r, c].float() * s[r])


def one_scale() -> tuple[Tensors, torch.Tensor]:
    """vLLM's fp8: a scale a weight, without blocks."""
    q, s = fp8(R, C), scales(1, dtype=torch.float32)
    return {"x.weight": q, "x.weight_scale": s, "x.input_scale": s.clone()}, q.float() * s


def exponents() -> tuple[Tensors, torch.Tensor]:
    q, e = fp8(R, 64), integers(120, 130, R, 2).to(torch.uint8)
    return {"x.weight": q, "x.weight_scale_inv": e}, each(
        R, 64, lambda r, c: q[r, c].float() * 2.0 ** (int(e[r, c // 32]) - 127)
    )


def int8_in_blocks() -> tuple[Tensors, torch.Tensor]:
    q, s = integers(-128, 128, R, C).to(torch.int8), scales(3, 5, dtype=torch.float32)
    return {"x.weight": q, "x.weight_scale_inv": s}, each(R, C, lambda r, c: q[r, c].float() * s[r // 7, c // 5])


def int8_of_sglang() -> tuple[Tensors, torch.Tensor]:
    q, s = integers(-128, 128, R, C).to(torch.int8), scales(R, 1, dtype=torch.float32)
    return {"x.weight": q, "x.weight_scale": s}, q.float() * s


def mxfp4_of_quark() -> tuple[Tensors, torch.Tensor]:
    q, e = integers(0, 16, R, 32), integers(120, 130, R, 1).to(torch.uint8)
    stored = {"x.weight": (q[:, ::2] | q[:, 1::2] << 4).to(torch.uint8), "x.weight_scale": e}
    return stored, each(R, 32, lambda r, c: signed(int(q[r, c])) * 2.0 ** (int(e[r, 0]) - 127))


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


def int4_of_modelopt() -> tuple[Tensors, torch.Tensor]:
    """AWQ: two rows a byte, and inputs that are scaled before the product."""
    q, s, inputs = integers(-8, 8, R, C), scales(R, 3, dtype=torch.bfloat16), scales(C, dtype=torch.bfloat16)
    stored = {
        "x.weight": ((q[0::2] & 15) | ((q[1::2] & 15) << 4)).to(torch.uint8),
        "x.weight_scale": s,
        "x.pre_quant_scale": inputs,
    }
    return stored, each(R, C, lambda r, c: q[r, c] * s[r, c // GROUP].float() * inputs[c].float())


def experts_of_modelopt() -> tuple[Tensors, torch.Tensor]:
    """Experts in one tensor, a parameter `weight`, with one scale."""
    q, s = fp8(2 * R, C).view(2, R, C), scales(1, dtype=torch.float32)
    return {"x.weight": q, "x.weight_weight_scale": s, "x.weight_input_scale": s.clone()}, q.float() * s


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


def swizzled(scale: torch.Tensor) -> torch.Tensor:
    """Scales [rows, groups] in tiles of 128 rows and 4 groups, element by element."""
    down, across = -(-scale.shape[0] // 128), -(-scale.shape[1] // 4)
    out = torch.zeros(down * across, 32, 16, dtype=torch.uint8)
    for r, g in product(*map(range, scale.shape)):
        out[r // 128 * across + g // 4, r % 32, r % 128 // 32 * 4 + g % 4] = scale.view(torch.uint8)[r, g]
    return out.reshape(32 * down, 16 * across).view(scale.dtype)


CT: dict[str, object] = {"quant_method": "compressed-tensors"}
PACKED: Mapping[str, tuple[dict[str, object], Callable[[], tuple[Tensors, torch.Tensor]]]] = {
    "fp8 in blocks": ({"quant_method": "fp8", "weight_block_size": [7, 5]}, by_blocks),
    "fp8 in blocks that no settings name": ({"quant_method": "fp8"}, by_unnamed_blocks),
    "fp8 of vllm": ({"quant_method": "fp8", "activation_scheme": "static"}, one_scale),
    "mxfp8": ({"quant_method": "mxfp8", "weight_block_size": [1, 32]}, exponents),
    "int8 in blocks": ({"quant_method": "blockwise_int8", "weight_block_size": [7, 5]}, int8_in_blocks),
    "int8 of sglang": ({"quant_method": "w8a8_int8"}, int8_of_sglang),
    "fp8 of sglang": ({"quant_method": "w8a8_fp8"}, rows_of_fp8),
    "int8 by channel": (CT, by_channel),
    "4 bits packed": (CT, partial(packed, 4)),
    "8 bits packed, columns in any order": (CT, partial(packed, 8, ordered=True)),
    "gptq": ({"quant_method": "gptq", "bits": 4}, partial(gptq, 1, ordered=False)),
    "gptq, columns in any order": ({"quant_method": "gptq", "bits": 4}, partial(gptq, 1, ordered=True)),
    "gptq, a layer of other bits": ({"quant_method": "gptq", "bits": 4}, partial(gptq, 1, ordered=True, bits=8)),
    "gptq 2, columns in any order": (
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"},
        partial(gptq, 0, ordered=True),
    ),
    "gptq of 3 bits": ({"quant_method": "gptq", "bits": 3}, partial(gptq, 1, ordered=True, bits=3)),
    "gptq 2 of 5 bits": (
        {"quant_method": "gptq", "bits": 5, "checkpoint_format": "gptq_v2"},
        partial(gptq, 0, ordered=True, bits=5),
    ),
    "3 bits packed": ({**CT, "config_groups": {"a": {"weights": {"num_bits": 3}}}}, partial(packed, 3)),
    "7 bits packed, columns in any order": (
        {**CT, "config_groups": {"a": {"weights": {"num_bits": 7}}}},
        partial(packed, 7, ordered=True),
    ),
    "groups that do not divide the columns": (
        {"quant_method": "gptq", "bits": 4, "group_size": 16},
        partial(unordered, 16, less=1),
    ),
    "auto-round": (
        {"quant_method": "intel/auto-round", "bits": 4, "group_size": GROUP},
        partial(unordered, GROUP, less=0),
    ),
    "auto-round, zeros less one": (
        {"quant_method": "auto-round", "bits": 8, "group_size": GROUP, "packing_format": "auto_round:auto_gptq"},
        partial(unordered, GROUP, less=1, bits=8),
    ),
    "auto-round, awq": ({"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_awq"}, awq),
    "awq": ({"quant_method": "awq", "version": "gemm"}, awq),
    "4 bits of hqq": ({"quant_method": "hqq"}, partial(of_hqq, 4, columns=False)),
    "3 bits of hqq, groups in columns": ({"quant_method": "hqq"}, partial(of_hqq, 3, columns=True)),
    "fp8 of quark": (of_quark("fp8_e4m3", "per_channel"), rows_of_fp8),
    "int4 of quark": (of_quark("int4", "per_group"), int4_of_quark),
    "mxfp4 of quark": (of_quark("fp4", "per_group"), mxfp4_of_quark),
    "fp8 between rotations that are in the weights": (
        {**CT, "transform_config": {"config_groups": {"R1": {"apply": [{"location": "weight_input"}]}}}},
        rows_of_fp8,
    ),
    "nvfp4 of modelopt": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, partial(fp4, divided=False)),
    "experts in fp8 of modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, experts_of_modelopt),
    "int4 of modelopt": ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, int4_of_modelopt),
    "int4 in fp8 of modelopt": ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, int4_in_fp8_of_modelopt),
    "nvfp4 in fp8 of modelopt": (
        {"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8"},
        partial(fp4, divided=False),
    ),
    "smoothquant of modelopt": ({"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"}, smoothed),
    "nvfp4 of compressed-tensors": (CT, partial(fp4, divided=True)),
    "mxfp4": ({"quant_method": "mxfp4"}, mxfp4),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, nf4),
    "int4 of torchao": ({"quant_method": "torchao"}, int4_of_torchao),
    "int4 of torchao in tiles": ({"quant_method": "torchao"}, int4_in_tiles),
    "int8 of bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, int8_rows),
}
"""By their kinds: the settings of the quantization, and a function that packs a weight `x`."""
