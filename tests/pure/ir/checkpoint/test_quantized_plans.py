"""Models without weights hold what their checkpoint would store, as its settings say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from ir.checkpoint.quantized.planned import hold_planned

Stored = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
FP8, BYTE, WORD = torch.float8_e4m3fn, torch.uint8, torch.int32
FLOAT, HALF = torch.float32, torch.float16
PACKED = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}
CHANNELS = {"num_bits": 8, "type": "float", "strategy": "channel"}

SETTINGS: Mapping[str, tuple[str, dict[str, object], Stored]] = {  # for a weight of 48 rows and 64 columns
    "blocks": ("fp8", {"weight_block_size": [32, 32]}, {"": (FP8, (48, 64)), "_scale": (FLOAT, (2, 2))}),
    "blocks that are not named": ("fp8", {}, {"": (FP8, (48, 64)), "_scale": (FLOAT, (1, 1))}),
    "no blocks": ("fp8", {"weight_block_size": None}, {"": (FP8, (48, 64)), "_scale": (FLOAT, ())}),
    "int8 in blocks": (
        "blockwise-int8",
        {"weight_block_size": [32, 32]},
        {"": (torch.int8, (48, 64)), "_scale": (FLOAT, (2, 2))},
    ),
    "mxfp8": ("mxfp8", {}, {"": (FP8, (48, 64)), "_scale": (BYTE, (48, 2))}),
    "fp8 of sglang": ("w8a8-fp8", {}, {"": (FP8, (48, 64)), "_scale": (FLOAT, (48, 1))}),
    "int8 of sglang": ("w8a8-int8", {}, {"": (torch.int8, (48, 64)), "_scale": (FLOAT, (48, 1))}),
    "fbgemm": ("fbgemm_fp8", {}, {"": (FP8, (48, 64)), "_scale": (FLOAT, (48, 1))}),
    "modelopt": ("modelopt", {"quant_algo": "FP8"}, {"": (FP8, (48, 64)), "_scale": (FLOAT, ())}),
    "nvfp4": (
        "modelopt",
        {"quant_algo": "NVFP4"},
        {"": (BYTE, (48, 32)), "_scale": (FP8, (48, 4)), "_global_scale": (FLOAT, ())},
    ),
    "awq of modelopt": (
        "modelopt",
        {"quant_algo": "W4A16_AWQ", "group_size": 32},
        {"": (BYTE, (24, 64)), "_scale": (FLOAT, (48, 2))},
    ),
    "awq in fp8 of modelopt": (
        "modelopt",
        {"quant_algo": "W4A8_AWQ", "group_size": 32},
        {"": (BYTE, (24, 64)), "_scale": (FLOAT, (48, 2)), "_global_scale": (FLOAT, ())},
    ),
    "nvfp4 in fp8 of modelopt": (
        "modelopt",
        {"quant_algo": "W4A8_NVFP4_FP8", "group_size": 32},
        {"": (BYTE, (48, 32)), "_scale": (FP8, (48, 2)), "_global_scale": (FLOAT, ())},
    ),
    "int8 of modelopt": (
        "modelopt",
        {"quant_algo": "W8A16"},
        {"": (torch.int8, (48, 64)), "_scale": (FLOAT, (48, 1))},
    ),
    "mxfp4 of modelopt": (
        "modelopt",
        {"quant_algo": "W4A8_MXFP4_FP8"},
        {"": (BYTE, (48, 32)), "_scale": (BYTE, (48, 2))},
    ),
    "packed": (
        "compressed-tensors",
        {"format": "pack-quantized", "config_groups": {"group_0": {"weights": PACKED | {"symmetric": False}}}},
        {"": (WORD, (48, 8)), "_scale": (FLOAT, (48, 2)), "_zeros": (WORD, (6, 2))},
    ),
    "channels": (
        "compressed-tensors",
        {"format": "float-quantized", "config_groups": {"group_0": {"weights": CHANNELS}}},
        {"": (FP8, (48, 64)), "_scale": (FLOAT, (48, 1))},
    ),
    "gptq": (
        "gptq",
        {"bits": 4, "group_size": 32, "desc_act": True},
        {"": (WORD, (8, 48)), "_zeros": (WORD, (2, 6)), "_scale": (HALF, (2, 48)), "_g_idx": (WORD, (64,))},
    ),
    "awq": ("awq", {"group_size": 64}, {"": (WORD, (64, 6)), "_zeros": (WORD, (1, 6)), "_scale": (HALF, (1, 48))}),
    "awq of autoround": (
        "auto-round",
        {"packing_format": "auto_round:auto_awq", "bits": 4, "group_size": 64},
        {"": (WORD, (64, 6)), "_zeros": (WORD, (1, 6)), "_scale": (HALF, (1, 48))},
    ),
    "gptq of autoround": (
        "auto-round",
        {"packing_format": "auto_round:auto_gptq", "bits": 8, "group_size": 32},
        {"": (WORD, (16, 48)), "_zeros": (WORD, (2, 12)), "_scale": (HALF, (2, 48))},
    ),
    "int4": (
        "torchao",
        {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 32}}}},
        {"": (torch.int8, (48, 32)), "_scale": (FLOAT, (2, 48)), "_zeros": (FLOAT, (2, 48))},
    ),
    "fp8 of quark": (
        "quark",
        {"global_quant_config": {"weight": {"dtype": "fp8_e4m3", "qscheme": "per_channel"}}},
        {"": (FP8, (48, 64)), "_scale": (FLOAT, (48,))},
    ),
    "int4 of quark": (
        "quark",
        {"global_quant_config": {"weight": {"dtype": "int4", "qscheme": "per_group", "group_size": 32}}},
        {"": (WORD, (64, 6)), "_zeros": (WORD, (2, 6)), "_scale": (HALF, (2, 48))},
    ),
    "mxfp4 of quark": (
        "quark",
        {"global_quant_config": {"weight": {"dtype": "fp4", "qscheme": "per_group"}}},
        {"": (BYTE, (48, 32)), "_scale": (BYTE, (48, 2))},
    ),
    "hqq": (
        "hqq",
        {"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 32, "axis": 1}}},
        {"": (BYTE, (48, 32)), "_scale": (FLOAT, (96, 1)), "_zeros": (FLOAT, (96, 1))},
    ),
    "int8": ("bitsandbytes", {"load_in_8bit": True}, {"": (torch.int8, (48, 64)), "_scale": (FLOAT, (48,))}),
    "nf4": (
        "bitsandbytes",
        {"load_in_4bit": True},
        {"": (BYTE, (1536, 1)), "_absmax": (FLOAT, (48,)), "_table": (FLOAT, (16,))},
    ),
}


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(3, 32, 64))


def made() -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"layer": nn.Linear(64, 48), "experts": Experts(), "lm_head": nn.Linear(64, 48)})


def held(model: nn.Module, path: str) -> Stored:
    return {n.removeprefix(path): (p.dtype, tuple(p.shape)) for n, p in model.named_parameters() if n.startswith(path)}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_linear_layer_holds_what_is_stored(name: str) -> None:
    method, settings, expected = SETTINGS[name]
    model = made()
    assert hold_planned(model, method, settings) == 2  # the experts are another
    assert held(model, "layer.weight") == expected
    assert held(model, "lm_head.weight") == {"": (FLOAT, (48, 64))}
    assert model.get_submodule("layer").weight.shape == (48, 64)
    assert model.get_submodule("experts").up.shape == (3, 32, 64)


def test_experts_alone_are_mxfp4() -> None:
    model = made()
    assert hold_planned(model, "mxfp4", {}) == 1
    assert held(model, "experts.up") == {"": (BYTE, (3, 64, 1, 16)), "_scale": (BYTE, (3, 64, 1))}


@pytest.mark.parametrize("method", ["gptq", "awq", "auto-round"])
def test_what_makes_logits_is_left_out_where_others_are(method: str) -> None:
    model = made()
    hold_planned(model, method, {"group_size": 16, "modules_to_not_convert": ["layer"]})
    assert held(model, "layer.weight") == held(model, "lm_head.weight") == {"": (FLOAT, (48, 64))}


@pytest.mark.parametrize("setting", ["modules_to_not_convert", "ignored_layers"])
@pytest.mark.parametrize("key", ["layer", "lay*", "re:^layer$"])
def test_modules_that_the_settings_leave_out(key: str, setting: str) -> None:
    model = made()
    hold_planned(model, "fp8", {setting: [key]})
    assert held(model, "layer.weight") == {"": (FLOAT, (48, 64))}
    assert held(model, "lm_head.weight")[""] == (FP8, (48, 64))


def test_a_method_that_is_not_known_is_planned_in_full_precision() -> None:
    model = made()
    assert hold_planned(model, "aqlm", {}) == 0
    assert hold_planned(model, "modelopt", {"quant_algo": None, "kv_cache_quant_algo": "FP8"}) == 0
    assert hold_planned(model, "quark", {"global_quant_config": {"weight": [{"dtype": "fp4"}]}}) == 0
