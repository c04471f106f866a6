"""A Llama-like model of 7 billion parameters in bfloat16 with random weights: a model file, and what peers load."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32000,
    use_cache=False,
    dtype="bfloat16",
)
SEQ = 512
checkpoint = Path(__file__).resolve().parents[3] / "build/benchmarks/llama"


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


def save() -> None:
    """The checkpoint, in 4 files; made on a GPU, as that takes seconds."""
    if not (checkpoint / "config.json").exists():
        torch.manual_seed(0)
        with torch.device("cuda"):
            made = model()
        made.save_pretrained(checkpoint, max_shard_size="4GB")


def load(device: str = "cuda:0") -> LlamaForCausalLM:
    """The whole model on one device."""
    with torch.device("meta"):
        loaded = model()
    for file in sorted(checkpoint.glob("*.safetensors")):
        loaded.load_state_dict(load_file(file, device=device), assign=True, strict=False)
    loaded.model.rotary_emb = type(loaded.model.rotary_emb)(CONFIG, device=device)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    return loaded.eval()
