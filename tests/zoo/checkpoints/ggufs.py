"""GGUF files as llama.cpp writes them, of small models of transformers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t
from safetensors.torch import save_file

from tests.zoo.checkpoints.kinds import Kind, Tried

Tensors = dict[str, np.ndarray]

_SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "pad_token_id": 0}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 56}
_IDS = torch.arange(3, 37).view(2, 17)


def decoder(name: str, **settings: Any) -> Any:
    """A small decoder with random weights, none of which are zeros or ones."""
    torch.manual_seed(0)
    config = getattr(t, f"{name}Config")(**{**_SIZES, **_HEADS, **settings})
    model = t.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4).add_(torch.randn_like(parameter) / 10)
    return model


# ---- what llama.cpp's converter does


def in_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head with those of its two halves in turn."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def arranged(architecture: str, config: Any, name: str, value: np.ndarray) -> np.ndarray:
    """A tensor of transformers as it lies in a file."""
    match architecture, name.split(".")[-2:]:
        case "llama", ["q_proj", _]:
            return in_pairs(value, config.num_attention_heads)
        case "llama", ["k_proj", _]:
            return in_pairs(value, config.num_key_value_heads)
        case "gemma2" | "gemma3" | "nemotron", [norm, "weight"] if norm.endswith("norm"):
            return value + 1
        case "gpt2", ["c_attn" | "c_proj" | "c_fc", "weight"]:
            return value.T
        case "bloom", ["query_key_value", _]:
            each = value.reshape(config.n_head, 3, -1, *value.shape[1:])
            return np.concatenate([each[:, i].reshape(-1, *value.shape[1:]) for i in range(3)])
        case "falcon", ["query_key_value", _]:
            each = value.reshape(config.num_kv_heads, -1, 64 // config.num_attention_heads, *value.shape[1:])
            parts = each[:, :-2], each[:, -2:-1], each[:, -1:]
            return np.concatenate([part.reshape(-1, *value.shape[1:]) for part in parts])
        case _, ["shared_expert_gate", "weight"]:
            return value[0]
    return value


def of_experts(architecture: str, layer: str, name: str, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors in a file that a weight of all experts becomes."""
    end = "bias" if name.endswith("_bias") else "weight"
    value = value.swapaxes(1, 2) if architecture == "gpt-oss" and end == "weight" else value
    if name.startswith("down_proj"):
        yield f"blk.{layer}.ffn_down_exps.{end}", value
        return
    half = value.shape[1] // 2
    in_turn = architecture == "gpt-oss"
    yield f"blk.{layer}.ffn_gate_exps.{end}", value[:, 0::2] if in_turn else value[:, :half]
    yield f"blk.{layer}.ffn_up_exps.{end}", value[:, 1::2] if in_turn else value[:, half:]


def converted(gguf: Any, architecture: str, model: Any) -> Tensors:
    """The tensors of a model by their names in a file."""
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names, found = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers), Tensors()
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        value = arranged(architecture, model.config, name, tensor.float().numpy())
        if m := re.fullmatch(r".*\.(\d+)\.mlp\.experts\.(\w+)", name):
            found.update(of_experts(architecture, m[1], m[2], value))
            continue
        bare, end = re.fullmatch(r"(.*?)(\.weight|\.bias)?", name).groups("")  # type: ignore[union-attr]
        known = names.get_name(bare) or names.get_name(bare.partition(".")[2])
        found[(known or f"blk.{bare.split('.')[2]}.ffn_gate_inp") + (end or ".weight")] = value
    return found


def described(writer: Any, architecture: str, config: Any) -> None:
    """Write the fields of a model."""
    heads = config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(getattr(config, "max_position_embeddings", 128))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_head_count_kv(getattr(config, "num_kv_heads", None) or getattr(config, "num_key_value_heads", heads))
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", None) or 1e-5)
    writer.add_layer_norm_eps(1e-5)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if experts := getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if getattr(config, "moe_intermediate_size", None):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if getattr(config, "shared_expert_intermediate_size", None):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    turned_by(writer, architecture, config)


def turned_by(writer: Any, architecture: str, config: Any) -> None:
    """Write the fields of positions."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_rope_dimension_count(int(size * rope.get("partial_rotary_factor", 1)))
    if "rope_theta" in rope:
        writer.add_rope_freq_base(float(rope["rope_theta"]))
    gguf = import_module("gguf")
    if rope.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope["rope_type"].upper()])
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope.get("original_max_position_embeddings", 128))
    if rope.get("rope_type") == "llama3":
        scaled = t.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0]
        plain = rope["rope_theta"] ** -(torch.arange(0, size, 2) / size)
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())


def written(gguf: Any, path: Path, architecture: str, model: Any, form: str = "F32", files: int = 1) -> None:
    """Write a model, whose weights become those that the file has."""
    kind = gguf.GGMLQuantizationType[form]
    if form != "F32":
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.dim() > 1):
                coded = gguf.quants.quantize(parameter.numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.quants.dequantize(coded, kind)))
    tensors = converted(gguf, architecture, model)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=-(-len(tensors) // files) if files > 1 else 0)
    described(writer, architecture, model.config)
    for name, value in tensors.items():
        value = np.ascontiguousarray(value, dtype=np.float32)
        if form == "F32" or value.ndim < 2:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- what is tried


def in_gguf(
    architecture: str, make: Callable[[], Any], *form: Any, change: Callable[[Any, Path], Any] | None = None
) -> Kind:
    """A file of a model; `change` adds to its folder, and returns the model with that."""

    def tried(folder: Path) -> Tried:
        folder = folder / "m"
        folder.mkdir()
        if find_spec("gguf") is None:
            (folder / "x.gguf").write_bytes(b"GGUF")
            return Tried(str(folder), {}, None)
        model, call = make(), {"input_ids": _IDS, "attention_mask": torch.ones_like(_IDS)}
        written(import_module("gguf"), folder / "x.gguf", architecture, model, *form)
        model = change(model, folder) if change else model
        options = {"adapter": str(folder / "lora")} if change else {}
        with torch.no_grad():
            return Tried(str(folder), call, model(**call).logits, options)

    return tried


def with_lora(model: Any, folder: Path) -> Any:
    """Save an adapter beside the file; returns the model with it."""
    generator = torch.Generator().manual_seed(1)
    (folder / "lora").mkdir()
    settings = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}'
    (folder / "lora/adapter_config.json").write_text(settings)
    tensors = dict[str, torch.Tensor]()
    for name, parameter in model.named_parameters():
        if not name.endswith("q_proj.weight"):
            continue
        below, above = (torch.randn(s, generator=generator) / 8 for s in ((2, 64), (64, 2)))
        path = f"base_model.model.{name.removesuffix('.weight')}"
        tensors |= {f"{path}.lora_A.weight": below, f"{path}.lora_B.weight": above}
        with torch.no_grad():
            parameter.add_(above @ below * 2)
    save_file(tensors, folder / "lora/adapter_model.safetensors")
    return model


def scaled(kind: str, **settings: Any) -> Callable[[], Any]:
    return lambda: decoder("Llama", rope_parameters={"rope_type": kind, "rope_theta": 1e4, **settings})


_OF_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_GEMMA = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}

GGUFS: Mapping[str, Kind] = {
    **{
        f"a Llama in {form}": in_gguf("llama", lambda: decoder("Llama"), form)
        for form in ("F32", "Q8_0", "Q4_0", "MXFP4")
    },
    "a Llama in three files": in_gguf("llama", lambda: decoder("Llama"), "F32", 3),
    "a Llama with LoRA beside it": in_gguf("llama", lambda: decoder("Llama"), "Q8_0", change=with_lora),
    "positions scaled linearly": in_gguf("llama", scaled("linear", factor=4.0)),
    "positions scaled by YaRN": in_gguf("llama", scaled("yarn", factor=4.0, original_max_position_embeddings=32)),
    "positions scaled as in Llama 3.1": in_gguf("llama", scaled("llama3", factor=8.0, **_OF_LLAMA3)),
    "biases of a Llama": in_gguf("llama", lambda: decoder("Llama", attention_bias=True, mlp_bias=True)),
    "Mixtral": in_gguf("llama", lambda: decoder("Mixtral", num_local_experts=4, num_experts_per_tok=2), "Q8_0"),
    "Qwen2": in_gguf("qwen2", lambda: decoder("Qwen2")),
    "Qwen2-MoE": in_gguf("qwen2moe", lambda: decoder("Qwen2Moe", num_experts=4, **_EXPERTS)),
    "Qwen3": in_gguf("qwen3", lambda: decoder("Qwen3", head_dim=32)),
    "Qwen3-MoE": in_gguf(
        "qwen3moe", lambda: decoder("Qwen3Moe", num_experts=4, head_dim=16, norm_topk_prob=True, **_EXPERTS)
    ),
    "gpt-oss": in_gguf("gpt-oss", lambda: decoder("GptOss", num_local_experts=4, num_experts_per_tok=2, head_dim=16)),
    "Gemma 2": in_gguf("gemma2", lambda: decoder("Gemma2", **_GEMMA)),
    "Gemma 3": in_gguf("gemma3", lambda: decoder("Gemma3Text", **_GEMMA)),
    "Falcon, several groups": in_gguf(
        "falcon", lambda: decoder("Falcon", intermediate_size=256, num_kv_heads=2, new_decoder_architecture=True)
    ),
    "GPT-2, of 128 positions": in_gguf(
        "gpt2", lambda: decoder("GPT2", intermediate_size=256, n_positions=128, n_embd=64, n_layer=2, n_head=4)
    ),
    "BLOOM": in_gguf("bloom", lambda: decoder("Bloom", n_layer=2, n_head=4)),
    "StableLM": in_gguf("stablelm", lambda: decoder("StableLm", partial_rotary_factor=0.5)),
    "StarCoder2": in_gguf("starcoder2", lambda: decoder("Starcoder2", sliding_window=None)),
    "Nemotron": in_gguf("nemotron", lambda: decoder("Nemotron")),
}
