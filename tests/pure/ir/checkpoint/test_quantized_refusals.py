"""Quantized weights that are not read, and settings and tensors that do not go together: each is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.quantized.quantization import Quantization
from ir.checkpoint.tensors import Held
from ir.errors import SourceError
from tests.support.weights.packed_weights import C, R, Tensors, fp8, gptq, int4_in_tiles, nf4, of_hqq, scales

REFUSED: Mapping[str, tuple[str, dict[str, object], str]] = {
    "an unknown method": (
        "aqlm",
        {},
        "weights quantized by aqlm are not read, those of fp8, mxfp8, fbgemm_fp8, w8a8-fp8, ",
    ),
    "16 bits": ("gptq", {"bits": 16}, "GPTQ of 16 bits as gptq is not read; 2 to 8 bits as gptq or gptq_v2 are"),
    "the first form of marlin": ("gptq", {"bits": 4, "is_marlin_format": True}, "GPTQ of 4 bits as marlin is not read"),
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
    "gemv of GPTQModel": (
        "awq",
        {"version": "gemm", "checkpoint_format": "gemv_fast"},
        "AWQ in the format gemv_fast is not read, of 4 bits in gemm it is",
    ),
    "int3 of quark": (
        "quark",
        {"global_quant_config": {"weight": {"dtype": "int3", "qscheme": "per_group"}}},
        "Quark's weights in int3, scaled per_group, are not read; export the model in fp8_e4m3, int8, int4 or MXFP4",
    ),
    "two levels of scales of quark": (
        "quark",
        {"layer_quant_config": {"x": {"weight": [{"dtype": "fp4"}, {"dtype": "fp8_e4m3"}]}}},
        "Quark's weights in a scheme of several levels, scaled None, are not read",
    ),
    "another order of quark": (
        "quark",
        {
            "global_quant_config": {"weight": {"dtype": "int4", "qscheme": "per_group"}},
            "export": {"pack_method": "order"},
        },
        "Quark's weights of 4 bits are read in the order `reorder`; export the model with that",
    ),
    "two kinds of 4 bits of quark": (
        "quark",
        {
            "global_quant_config": {"weight": {"dtype": "int4", "qscheme": "per_group"}},
            "layer_quant_config": {"x": {"weight": {"dtype": "uint4", "qscheme": "per_group"}}},
        },
        "Quark's weights in int4 beside some in uint4 are not read; export all in one of these",
    ),
    "rotations of quark": (
        "quark",
        {"algo_config": [{"name": "rotation", "online_r1_rotation": True}]},
        "Quark's weights between rotations that are made at each call are not read; export without",
    ),
    "rotations of activations": (
        "compressed-tensors",
        {"transform_config": {"config_groups": {"R1": {"apply": [{"location": "input"}]}}}},
        "weights between rotations (`transform_config`) are not read; save the model dequantized",
    ),
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


@pytest.mark.parametrize("groups", [{"group_0": 7}, [7], 7])
def test_groups_that_are_none_are_named(groups: object) -> None:
    quantization = Quantization("compressed-tensors", {"config_groups": groups})
    with pytest.raises(SourceError, match=r"settings of compressed-tensors are not as it writes them \(AttributeError"):
        quantization.of_activations({})


def test_a_layer_in_gptq_of_other_bits_is_refused() -> None:
    codes = torch.ones(9, 64, dtype=torch.int32)
    stored = {"x.qweight": codes, "x.qzeros": torch.ones(1, 18), "x.scales": torch.ones(1, 64)}  # 9 bits
    with pytest.raises(SourceError, match="layers in GPTQ are read if each has 2 to 8 bits"):
        Quantization("gptq", {"bits": 4}).weights({name: Held(t) for name, t in stored.items()})


def test_words_of_other_sizes_are_refused() -> None:
    """Words of 16 bits have shapes of twice as many bits in words of 32."""
    stored, _ = gptq(1, ordered=False)
    short = {name: t.to(torch.int16) if t.dtype == torch.int32 else t for name, t in stored.items()}
    with pytest.raises(
        SourceError, match=r"GPTQ that are packed into int16 are not read; save the model with pack_dty"
    ):
        Quantization("gptq", {"bits": 4}).weights({name: Held(t) for name, t in short.items()})
    with pytest.raises(SourceError, match=r"AWQ are read if they are packed into int32, not torch.int16"):
        Quantization("awq", {"bits": 4}).weights({name: Held(t) for name, t in short.items()})
    quark = {"x.weight": torch.ones(C, 2, dtype=torch.int32), "x.weight_scale": scales(3, R)}
    with pytest.raises(SourceError, match=r"Quark's weights of 4 bits are read with zeros beside them; export"):
        Quantization("quark", {}).weights({name: Held(t) for name, t in quark.items()})


def test_codes_of_other_bits_than_their_zeros_are_refused() -> None:
    """Zeros of 3 bits that are filled up to 3 words, which might be of 5 bits, too."""
    stored = {"qweight": (3, 16), "qzeros": (2, 3), "g_idx": (32,)}
    tensors = {f"x.{name}": torch.zeros(shape, dtype=torch.int32) for name, shape in stored.items()}
    tensors["x.scales"] = scales(2, 16)
    with pytest.raises(SourceError, match=r"x.weight is not stored as .* \(ValueError: zeros of 5 bits, and codes of"):
        Quantization("gptq", {"bits": 3}).weights(
            {n: Held(t) for n, t in {**tensors, "x.scales": scales(2, 16)}.items()}
        )


def test_experts_of_modelopt_in_other_codes_are_refused() -> None:
    codes = torch.ones(2, 4, 4, dtype=torch.uint8)
    stored = {"x.up": Held(codes), "x.up_weight_scale": Held(fp8(4, 1)), "x.up_weight_scale_2": Held(scales(1))}
    with pytest.raises(SourceError, match=r"ModelOpt's experts in one tensor are read in FP8 alone; export the model"):
        Quantization("modelopt", {"quant_algo": "NVFP4"}).weights(stored)


def test_forms_of_hqq_that_are_refused() -> None:
    stored, _ = of_hqq(4, columns=False)
    for other in ({"x.quant_scale": torch.tensor(1)}, {"x.nbits": torch.tensor(5)}, {"x.W_q": scales(R, C)}):
        with pytest.raises(
            SourceError, match=r"HQQ's weights are read if they have 1, 2, 3, 4 or 8 bits, are stored as"
        ):
            Quantization("hqq", {}).weights({name: Held(t) for name, t in (stored | other).items()})


def test_a_cache_that_is_quantized_alone_changes_no_weights() -> None:
    stored = {"x.weight": Held(scales(R, C)), "x.k_scale": Held(scales(1))}
    settings = {"quant_algo": None, "kv_cache_quant_algo": "FP8"}
    assert set(Quantization("modelopt", settings).dequantized(stored, torch.float32)) == {"x.weight"}


def test_lora_beside_weights_is_not_left_out(tmp_path: Path) -> None:
    """As loralib and EoRA save it, where no settings of an adapter are."""
    stored = {"0.weight": scales(R, C), "0.lora_A": scales(2, C), "0.lora_B": scales(R, 2)}
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(
        SourceError, match=r"has 0.lora_A, 0.lora_B, LoRA beside its weights, for which the model has no"
    ):
        Checkpoint.open(tmp_path).for_model(nn.Sequential(nn.Linear(C, R, bias=False)))


def test_blocks_of_two_sizes_that_go_with_one_weight_are_refused() -> None:
    stored = {"x.weight": Held(fp8(R, C)), "x.weight_scale": Held(scales(2, 3))}
    groups = {str(size): {"weights": {"block_structure": [size, size]}} for size in (10, 11)}
    with pytest.raises(SourceError, match="blocks of 10 x 10 and 11 x 11 go with one weight alike; save the model deq"):
        Quantization("compressed-tensors", {"config_groups": groups}).weights(stored)


def test_zeros_between_values_that_are_left_out_are_refused() -> None:
    stored = {"x.compressed": Held(scales(9)), "x.bitmask": Held(torch.ones(R, 3, dtype=torch.uint8))}
    with pytest.raises(SourceError, match=r"weights without their zeros \(sparse-bitmask\) are not read; save the mod"):
        Quantization("compressed-tensors", {}).weights(stored)


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
        (
            "compressed-tensors",
            {"x.weight": scales(R, C), "x.weight_scale": scales(R, 1)},
            r"ValueError: torch.float16 in place of codes, as before the model is compressed",
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
