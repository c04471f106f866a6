"""Folders and files of other programs, each refused with what it is, and Llamas in quantized forms with adapters."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.models.small_llama import llama
from tests.support.weights.packed_weights import words
from tests.zoo.checkpoints.adapters import adapter
from tests.zoo.checkpoints.folders import folder_of, only
from tests.zoo.checkpoints.kinds import Kind

Quantizer = Callable[[torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]
"""The stored tensors of a weight, by the ends of their names, and the weight that they stand for."""


def holding(names: Mapping[str, tuple[str, ...]]) -> Callable[[Path], None]:
    """A folder with files of tensors of these names, without config.json."""

    def change(folder: Path) -> None:
        only({})(folder)
        folder.mkdir()
        for file, tensors in names.items():
            save_file({name: torch.ones(2, 2) for name in tensors}, folder / file)

    return change


OTHERS: dict[str, Kind] = {
    name: folder_of(change, refused=True)
    for name, change in {
        "vLLM's sharded state": only({f"model-rank-{rank}-part-0.safetensors": "" for rank in range(2)}),
        "Meta's `consolidated.00.pth`": only({"params.json": {}, "consolidated.00.pth": ""}),
        "Mistral's `consolidated.safetensors`": only({"params.json": {}, "consolidated.safetensors": ""}),
        "a checkpoint of TensorRT-LLM": only({"config.json": {"architecture": "X", "mapping": {}}}),
        "an engine of TensorRT-LLM": only({"config.json": {"pretrained_config": {}, "build_config": {}}}),
        "nunchaku": only({"transformer_blocks.safetensors": "", "unquantized_layers.safetensors": ""}),
        "NeMo": only({"model_config.yaml": "", "model_weights.ckpt": ""}),
        "NeMo 2": only({"context/model.yaml": "", "weights/common.pt": ""}),
        "GPT-NeoX": only({"layer_00-model_00-model_states.pt": ""}),
        "Orbax": only({"_CHECKPOINT_METADATA": {}}),
        "CTranslate2": only({"config.json": {}, "model.bin": "", "vocabulary.json": []}),
        "Core ML": only({"x.mlpackage/Manifest.json": {}}),
        "MLC": only({"ndarray-cache.json": {}, "params_shard_0.bin": ""}),
        "ONNX Runtime": only({"genai_config.json": {}, "model.onnx": ""}),
        "a SavedModel of TensorFlow": only({"saved_model.pb": ""}),
        "a checkpoint of TensorFlow": only({"bert_model.ckpt.index": ""}),
        "a folder of Keras": only({"x.keras": ""}),
        "a llamafile": only({"x.llamafile": ""}),
        "spaCy": only({"meta.json": {}, "config.cfg": ""}),
        "PaddleNLP": only({"config.json": {"model_type": "llama", "paddlenlp_version": "3.0"}}),
        "a tokenizer alone": only({"tokenizer.json": {}}),
        "a LoRA adapter of diffusers": only({"pytorch_lora_weights.safetensors": ""}),
        "a LoRA adapter of kohya's": holding({"x.safetensors": ("lora_unet_mid_block.lora_down.weight",)}),
        "LyCORIS": holding({"x.safetensors": ("lora_unet_mid_block.hada_w1_a",)}),
        "a textual inversion": only({"learned_embeds.safetensors": ""}),
        "an IP-Adapter": holding({"x.safetensors": ("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight")}),
        "Stable Diffusion in one file": holding({"v1-5.safetensors": ("model.diffusion_model.out.2.weight",)}),
        "Flux in one file": holding({"flux1-dev.safetensors": ("double_blocks.0.img_mod.lin.weight",)}),
        "torchtitan": holding({"x.safetensors": ("layers.0.attention.wq.weight",)}),
        "torchtune": holding({"x.safetensors": ("layers.0.attn.output_proj.weight",)}),
        "LitGPT": holding({"x.safetensors": ("transformer.h.0.attn.qkv.weight",)}),
        "Megatron Core": holding({"x.safetensors": ("decoder.layers.0.self_attention.linear_qkv.weight",)}),
        "an adapter of MLX": only({"adapter_config.json": {"fine_tune_type": "lora"}}),
        "an adapter of AdapterHub's": only({"adapter_config.json": {"config": {"reduction_factor": 16}}}),
    }.items()
}


def integers(weight: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 16, weight.shape, generator=torch.Generator().manual_seed(1))


def scales(*shape: int) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.5).half() / 64


def gptq(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, (rows, columns) = integers(weight), weight.shape
    size, group = scales(columns // 16, rows), torch.arange(columns).flip(0) // 16
    stored = {"qweight": words(codes, 4).t(), "qzeros": words(torch.full_like(size, 7).long(), 4), "scales": size}
    return {**stored, "g_idx": group.int()}, (codes - 8).half() * size[group].t()


def awq(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size, order = integers(weight), scales(weight.shape[1] // 16, weight.shape[0]), (0, 2, 4, 6, 1, 3, 5, 7)
    zeros = torch.full_like(size, 8).long()
    stored = {"qweight": words(codes.t(), 4, order), "qzeros": words(zeros, 4, order), "scales": size}
    return stored, (codes - 8).half() * size.t().repeat_interleave(16, 1)


def w4a16(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = integers(weight), scales(weight.shape[0], weight.shape[1] // 16)
    stored = {"weight_packed": words(codes, 4), "weight_scale": size, "weight_shape": torch.tensor(weight.shape)}
    return stored, (codes - 8).half() * size.repeat_interleave(16, 1)


def fp8_blocks(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = weight.to(torch.float8_e4m3fn), scales(weight.shape[0] // 16, weight.shape[1] // 16).float() * 64
    wide = size.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return {"weight": codes, "weight_scale_inv": size}, codes.float() * wide


def fp8_whole(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = weight.to(torch.float8_e4m3fn), scales(1).float() * 64
    return {"weight": codes, "weight_scale": size, "input_scale": torch.tensor(1.0)}, codes.float() * size


def mxfp8(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, exponents = weight.to(torch.float8_e4m3fn), torch.arange(weight.numel() // 32) % 5 + 125
    wide = torch.exp2(exponents.float() - 127).view(weight.shape[0], -1).repeat_interleave(32, 1)
    return {
        "weight": codes,
        "weight_scale_inv": exponents.to(torch.uint8).view(weight.shape[0], -1),
    }, codes.float() * wide


def int8_blocks(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = integers(weight).to(torch.int8) - 8, scales(weight.shape[0] // 16, weight.shape[1] // 16).float()
    wide = size.repeat_interleave(16, 0).repeat_interleave(16, 1)
    return {"weight": codes, "weight_scale_inv": size}, codes.float() * wide


def quark_fp8(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = weight.to(torch.float8_e4m3fn), scales(weight.shape[0]).float() * 64
    return {"weight": codes, "weight_scale": size, "input_scale": torch.tensor(1.0)}, codes.float() * size[:, None]


def quark_int4(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes, size = integers(weight), scales(weight.shape[1] // 16, weight.shape[0])
    order, zeros = (0, 2, 4, 6, 1, 3, 5, 7), torch.zeros(size.shape, dtype=torch.int64)
    stored = {"weight": words((codes - 8).t() & 15, 4, order), "weight_zero_point": words(zeros, 4, order)}
    return {**stored, "weight_scale": size}, (codes - 8).half() * size.t().repeat_interleave(16, 1)


def quark_mxfp4(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes = integers(weight)
    exponents = torch.randint(118, 122, (weight.shape[0], weight.shape[1] // 32), dtype=torch.uint8)
    half = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    wide = torch.exp2(exponents.float() - 127).repeat_interleave(32, 1)
    pairs = codes.to(torch.uint8).unflatten(1, (-1, 2))
    stored = {"weight": pairs[..., 0] | pairs[..., 1] << 4, "weight_scale": exponents}
    return stored, torch.cat([half, -half])[codes] * wide


def hqq(weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    groups = integers(weight).view(-1, 16)
    size, zeros, half = scales(len(groups), 1), scales(len(groups), 1) * 256, len(groups) // 2
    said = {"nbits": 4, "axis": 1, "group_size": 16, "quant_scale": 0, "quant_zero": 0, "view_as_float": 0}
    stored = {"W_q": (groups[:half] << 4 | groups[half:]).to(torch.uint8), "scale": size, "zero": zeros}
    stored |= {name: torch.tensor(value, dtype=torch.int32) for name, value in said.items()}
    return {**stored, "shape": torch.tensor(weight.shape)}, ((groups.half() - zeros) * size).view(weight.shape)


def of_quark(dtype: str, scheme: str) -> dict[str, Any]:
    spec = {"dtype": dtype, "qscheme": scheme}
    export = {"pack_method": "reorder", "weight_format": "real_quantized"}
    return {"quant_method": "quark", "global_quant_config": {"weight": spec}, "export": export, "exclude": ["lm_head"]}


def quantized(quantizer: Quantizer, settings: Mapping[str, Any]) -> Callable[[Path], Any]:
    """Save the linear layers quantized, with LoRA beside them; returns the model with both."""

    def change(folder: Path) -> Any:
        merged = adapter()(folder)
        added = {n: p - dict(llama().named_parameters())[n] for n, p in merged.named_parameters() if "q_proj" in n}
        tensors, plain = load_file(folder / "model.safetensors"), pickle.loads(pickle.dumps(llama()))
        for name in [name for name in tensors if "_proj." in name]:
            stored, weight = quantizer(tensors.pop(name))
            tensors |= {f"{name.removesuffix('weight')}{end}": t.contiguous() for end, t in stored.items()}
            with torch.no_grad():
                plain.get_parameter(name).copy_(weight.float() + added.get(name, 0))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
        return plain

    return change


_CT = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
_FORMS: dict[str, tuple[Quantizer, dict[str, Any]]] = {
    "GPTQ": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True}),
    "AWQ": (awq, {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemm"}),
    "W4A16": (w4a16, _CT),
    "HQQ": (hqq, {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}),
    "Quark's FP8": (quark_fp8, of_quark("fp8_e4m3", "per_channel")),
    "Quark's int4": (quark_int4, of_quark("int4", "per_group")),
    "Quark's MXFP4": (quark_mxfp4, of_quark("fp4", "per_group")),
    "FP8 with a scale a weight": (fp8_whole, {"quant_method": "fp8", "activation_scheme": "static"}),
    "MXFP8": (mxfp8, {"quant_method": "mxfp8", "weight_block_size": [1, 32]}),
    "INT8 in blocks": (int8_blocks, {"quant_method": "blockwise_int8", "weight_block_size": [16, 16]}),
    "FP8 in blocks": (fp8_blocks, {"quant_method": "fp8", "weight_block_size": [16, 16]}),
}


def without_settings(folder: Path) -> Any:
    """Weights in GPTQ, as for transformers, and a config.json that does not say so."""
    quantized(*_FORMS["GPTQ"])(folder)
    (folder / "adapter_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": None}))


OTHERS["GPTQ without its settings"] = folder_of(without_settings, refused=True)

QUANTIZED: dict[str, Kind] = {
    **{f"LoRA on {name}": folder_of(quantized(*form)) for name, form in _FORMS.items()},
    "LoRA on FP8 in blocks, with `--adapter keep`": folder_of(quantized(*_FORMS["FP8 in blocks"]), adapter="keep"),
}
