"""Adapters that peft saves, beside the weights of a Llama."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.support.models.small_llama import llama
from tests.zoo.checkpoints import merging
from tests.zoo.checkpoints.folders import configured, folder_of
from tests.zoo.checkpoints.kinds import Kind


def adapter(**settings: Any) -> Callable[[Path], Any]:
    """Write a LoRA adapter beside the weights; returns the model with it merged."""

    def change(folder: Path) -> Any:
        torch.manual_seed(1)
        merged, tensors = pickle.loads(pickle.dumps(llama())), {}
        for i, layer in enumerate(merged.model.layers):
            down, up = torch.randn(4, 32), torch.randn(32, 4)
            stem = f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_"
            tensors |= {f"{stem}A.weight": down, f"{stem}B.weight": up}
            with torch.no_grad():
                layer.self_attn.q_proj.weight += up @ down * 2.0
        save_file(tensors, folder / "adapter_model.safetensors")
        rules = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **settings}
        (folder / "adapter_config.json").write_text(json.dumps(rules))
        return merged

    return change


def of_kind(
    kind: str,
    change: Callable[[torch.Tensor], tuple[torch.Tensor, merging.Parts]],
    shared: Mapping[str, torch.Tensor] | None = None,
    **settings: Any,
) -> Any:
    """Write an adapter of another kind: `change` returns a layer's new weight and the adapter's tensors for it.

    `shared`: the adapter's tensors for all layers.
    """

    def write(folder: Path) -> Any:
        torch.manual_seed(1)
        merged, tensors = pickle.loads(pickle.dumps(llama())), {}
        tensors |= {f"base_model.{name}": tensor for name, tensor in (shared or {}).items()}
        for i, layer in enumerate(merged.model.layers):
            with torch.no_grad():
                weight, parts = change(layer.self_attn.q_proj.weight.clone())
                layer.self_attn.q_proj.weight.copy_(weight)
            tensors |= {f"base_model.model.model.layers.{i}.self_attn.q_proj.{name}": t for name, t in parts.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        rules = {"peft_type": kind, "r": 4, "lora_alpha": 8, "alpha": 8, "target_modules": ["q_proj"], **settings}
        (folder / "adapter_config.json").write_text(json.dumps(rules))
        return merged

    return write


def tokens(folder: Path) -> Any:
    """Rows of the table of embeddings beside LoRA."""
    merged = adapter(trainable_token_indices=[3, 7])(folder)
    tensors, rows = load_file(folder / "adapter_model.safetensors"), torch.randn(2, 32)
    with torch.no_grad():
        merged.model.embed_tokens.weight[[3, 7]] = rows
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    save_file({**tensors, name: rows}, folder / "adapter_model.safetensors")
    return merged


def saved_whole(folder: Path) -> Any:
    """Beside LoRA, a head that replaces the model's."""
    merged = adapter(modules_to_save=["lm_head"])(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        merged.lm_head.weight.copy_(head := torch.randn(merged.lm_head.weight.shape))
    save_file({**tensors, "base_model.model.lm_head.weight": head}, folder / "adapter_model.safetensors")
    return merged


def untied(folder: Path) -> Any:
    """A head that replaces the model's, which config.json says is the table of embeddings."""
    merged = adapter(modules_to_save=["lm_head"])(folder)
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        merged.lm_head.weight.copy_(head := torch.randn(merged.lm_head.weight.shape))
    save_file(
        {n: t for n, t in tensors.items() if n != "lm_head.weight"}, folder / "model.safetensors", {"format": "pt"}
    )
    configured(tie_word_embeddings=True)(folder)
    added = load_file(folder / "adapter_model.safetensors")
    save_file({**added, "base_model.model.lm_head.weight": head}, folder / "adapter_model.safetensors")
    return merged


def tied_embeddings(folder: Path) -> Any:
    """LoRA of the embeddings, which are the head, too, and stay as they are there."""
    configured(tie_word_embeddings=True)(folder)
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    save_file(
        {n: t for n, t in tensors.items() if n != "lm_head.weight"}, folder / "model.safetensors", {"format": "pt"}
    )
    torch.manual_seed(1)
    merged, down, up = pickle.loads(pickle.dumps(llama())), torch.randn(4, 96), torch.randn(32, 4)
    with torch.no_grad():
        merged.lm_head.weight.copy_(table)
        merged.model.embed_tokens.weight += (up @ down).t() * 2.0
    stem = "base_model.model.model.embed_tokens.lora_embedding_"
    save_file({f"{stem}A": down, f"{stem}B": up}, folder / "adapter_model.safetensors")
    rules = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["embed_tokens"]}
    (folder / "adapter_config.json").write_text(json.dumps(rules))
    return merged


def with_replaced(folder: Path) -> Any:
    """With `bias="all"`, the biases of a module that the adapter also has whole, as it was."""
    merged = saved_whole(folder)
    file = folder / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.lm_head.original_module.bias": torch.ones(96)}, file)
    return merged


def as_bin(folder: Path) -> Any:
    merged = adapter()(folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    return merged


def without_a_layer(folder: Path) -> Any:
    """Without the matrices of the first layer, which peft leaves as it is in the base."""
    merged, name = adapter()(folder), "model.layers.0.self_attn.q_proj"
    tensors = load_file(folder / "adapter_model.safetensors")
    with torch.no_grad():
        merged.get_submodule(name).weight.copy_(llama().get_submodule(name).weight)
    save_file({n: t for n, t in tensors.items() if name not in n}, folder / "adapter_model.safetensors")
    return merged


def of_another_model(folder: Path) -> Any:
    merged = adapter()(folder)
    tensors = {name: torch.randn(48, 48) for name in load_file(folder / "adapter_model.safetensors")}
    save_file(tensors, folder / "adapter_model.safetensors")
    return merged


def with_more_tokens(folder: Path) -> Any:
    """A table of embeddings with rows more than the base has."""
    merged = adapter(modules_to_save=["embed_tokens"])(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.randn(98, 32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return merged


ADAPTERS: dict[str, Kind] = {
    "LoRA beside the weights": folder_of(adapter()),
    "LoRA with a scale over the root of the rank": folder_of(adapter(use_rslora=True, lora_alpha=4)),
    "LoRA beside the weights, with `--adapter keep`": folder_of(adapter(), adapter="keep"),
    "DoRA": folder_of(of_kind("LORA", merging.dora, use_dora=True)),
    "IA3": folder_of(of_kind("IA3", merging.ia3)),
    "prompt tuning": folder_of(adapter(peft_type="PROMPT_TUNING"), refused=True),
    "LoRA with a head of its own": folder_of(saved_whole),
    "LoRA with a head of its own, of a model that ties that": folder_of(untied),
    "LoRA on embeddings that are the head, too": folder_of(tied_embeddings),
    "LoRA with biases of what it replaces": folder_of(with_replaced),
    "LoRA in a `.bin`": folder_of(as_bin),
    "LoRA without a layer that its settings name": folder_of(without_a_layer),
    "LoRA of another model": folder_of(of_another_model, refused=True),
    "LoRA with ranks by module": folder_of(adapter(r=99, rank_pattern={"q_proj": 4})),
    "LoRA of another rank than its settings say": folder_of(adapter(r=8), refused=True),
    "LoRA with tokens more": folder_of(with_more_tokens, refused=True),
    "LoRA with rows of single tokens": folder_of(tokens),
    "AdaLoRA": folder_of(of_kind("ADALORA", merging.adalora, init_r=4)),
    "LoHa": folder_of(of_kind("LOHA", merging.loha)),
    "LoKr": folder_of(of_kind("LOKR", merging.lokr)),
    "OFT": folder_of(of_kind("OFT", merging.oft, use_cayley_neumann=False)),
    "VeRA without its random matrices": folder_of(adapter(peft_type="VERA"), refused=True),
    "BOFT": folder_of(of_kind("BOFT", merging.boft)),
    "RoAd": folder_of(of_kind("ROAD", merging.road, group_size=2)),
    "HiRA": folder_of(of_kind("HIRA", merging.hira)),
    "DeLoRA": folder_of(of_kind("DELORA", merging.delora)),
    "GraLoRA": folder_of(of_kind("GRALORA", merging.gralora)),
    "VB-LoRA": folder_of(of_kind("VBLORA", merging.vblora, shared=merging.VECTORS, topk=2)),
    "RandLoRA": folder_of(of_kind("RANDLORA", merging.randlora, shared=merging.MATRICES, randlora_alpha=8)),
    "BD-LoRA": folder_of(of_kind("LORA", merging.bdlora, use_bdlora={"target_modules_bd_a": ["q"], "nblocks": 2})),
    "MiSS": folder_of(of_kind("MISS", merging.miss)),
    "SHiRA": folder_of(of_kind("SHIRA", merging.shira)),
    "FourierFT": folder_of(of_kind("FOURIERFT", merging.fourierft, n_frequency=3, scaling=300, random_loc_seed=9)),
    "C3A": folder_of(of_kind("C3A", merging.c3a)),
    "GLoRA": folder_of(of_kind("GLORA", merging.glora)),
    "OSF": folder_of(of_kind("OSF", merging.osf)),
    "DEFT": folder_of(of_kind("DEFT", merging.deft)),
    "PEANuT": folder_of(of_kind("PEANUT", merging.peanut)),
    "WaveFT": folder_of(of_kind("WAVEFT", merging.waveft, n_frequency=3, scaling=2, random_loc_seed=9, use_idwt=False)),
    "Super": folder_of(of_kind("SUPERTUNING", merging.supertuning)),
    "Uni-LoRA": folder_of(of_kind("UNILORA", merging.unilora, shared=merging.NUMBERS)),
    "PVeRA": folder_of(of_kind("PVERA", merging.pvera, shared=merging.MEANS)),
    "PSOFT": folder_of(adapter(peft_type="PSOFT"), refused=True),
    "Lily": folder_of(adapter(peft_type="LILY"), refused=True),
    "LoRA begun by PiSSA": folder_of(adapter(init_lora_weights="pissa"), refused=True),
    "prefix tuning": folder_of(adapter(peft_type="PREFIX_TUNING"), refused=True),
}
