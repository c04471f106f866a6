"""A Llama-like model in bfloat16 with random weights, of 8 layers a GPU: a model file, and what peers load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LAYERS_A_GPU = 8  # so a stage is the same on all hosts; 7 billion parameters on four GPUs
CONFIG = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=LAYERS_A_GPU * max(1, torch.cuda.device_count()),
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32000,
    use_cache=False,
    dtype="bfloat16",
)
SEQ = 512
STAGES = Path(__file__).resolve().parents[3] / "build/benchmarks/llama"  # the artifact; its weights are everybody's


def model() -> LlamaForCausalLM:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return LlamaForCausalLM(CONFIG).eval()
    finally:
        torch.set_default_dtype(before)


def example_inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(4)}


dynamic_shapes = {"input_ids": {0: "batch", 1: "seq"}}


def ids(batch: int) -> torch.Tensor:
    return torch.randint(CONFIG.vocab_size, (batch, SEQ), generator=torch.Generator().manual_seed(0))


def fill() -> None:
    """Give the stages of an artifact without weights random ones."""
    from runtime.manifest.manifest import Manifest
    from runtime.stage.loader import import_file

    manifest = Manifest.read(STAGES)
    for stage, entry in zip(manifest.programs[0].stages, manifest.stages, strict=True):
        if not (STAGES / entry.weights).exists():
            with torch.device("meta"):
                module = getattr(import_file(STAGES / stage.module), stage.cls)()
            save_file(dict(_random(module)), STAGES / entry.weights)


def _random(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, empty in module.named_parameters():
        std = 0.0 if "norm" in name else 0.02
        yield name, torch.randn(empty.shape, device="cuda", dtype=empty.dtype) * std + (std == 0)
    for name, _ in module.named_buffers():
        assert name == "model.rotary_emb.inv_freq"
        yield name, LlamaRotaryEmbedding(CONFIG).inv_freq


def load(device: str = "cuda:0") -> LlamaForCausalLM:
    """The whole model on one device."""
    with torch.device("meta"):
        loaded = model()
    loaded.model.rotary_emb = LlamaRotaryEmbedding(CONFIG).to(device)
    for file in sorted(STAGES.glob("*.safetensors")):
        loaded.load_state_dict(load_file(file, device=device), assign=True, strict=False)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    return loaded.eval()
