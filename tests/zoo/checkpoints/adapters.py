"""Adapters that peft saves, beside the weights of a Llama."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.zoo.checkpoints.folders import configured, folder_of
from tests.zoo.checkpoints.kinds import Kind, llama


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


def as_bin(folder: Path) -> Any:
    merged = adapter()(folder)
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    return merged


def of_another_model(folder: Path) -> Any:
    merged = adapter()(folder)
    tensors = {name: torch.randn(48, 48) for name in load_file(folder / "adapter_model.safetensors")}
    save_file(tensors, folder / "adapter_model.safetensors")
    return merged


ADAPTERS: dict[str, Kind] = {
    "LoRA beside the weights": folder_of(adapter()),
    "LoRA with a scale over the root of the rank": folder_of(adapter(use_rslora=True, lora_alpha=4)),
    "LoRA beside the weights, with `--adapter keep`": folder_of(adapter(), adapter="keep"),
    "DoRA": folder_of(adapter(use_dora=True), refused=True),
    "IA3": folder_of(adapter(peft_type="IA3"), refused=True),
    "prompt tuning": folder_of(adapter(peft_type="PROMPT_TUNING"), refused=True),
    "LoRA with a head of its own": folder_of(saved_whole),
    "LoRA with a head of its own, of a model that ties that": folder_of(untied),
    "LoRA in a `.bin`": folder_of(as_bin),
    "LoRA of another model": folder_of(of_another_model, refused=True),
    "LoRA with ranks by module": folder_of(adapter(r=99, rank_pattern={"q_proj": 4})),
    "AdaLoRA": folder_of(adapter(peft_type="ADALORA"), refused=True),
    "LoHa": folder_of(adapter(peft_type="LOHA"), refused=True),
    "VeRA": folder_of(adapter(peft_type="VERA"), refused=True),
    "LoRA begun by PiSSA": folder_of(adapter(init_lora_weights="pissa"), refused=True),
    "prefix tuning": folder_of(adapter(peft_type="PREFIX_TUNING"), refused=True),
}
