"""The Llama-like model of 7.2 billion parameters as a decoder, or with fewer layers: a model file for the compiler."""

from __future__ import annotations

import os

import torch
from transformers import LlamaConfig, LlamaForCausalLM

LAYERS = "TOKENS_LAYERS"  # the variable that says how many
HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 4096, 14336, 32, 8, 32000


def environment(layers: int) -> dict[str, str]:
    """The environment in which this file is a model of so many layers."""
    return {**os.environ, LAYERS: str(layers)}


def weight_bytes(layers: int) -> int:
    """Bytes of weights that a step reads: all but the embedding."""
    width = HIDDEN // HEADS
    layer = 2 * HIDDEN * (HIDDEN + KEY_HEADS * width) + 3 * HIDDEN * INNER
    return 2 * (layers * layer + HIDDEN * VOCABULARY)


def key_bytes(layers: int) -> int:
    """Bytes of keys and values of one token."""
    return 2 * 2 * layers * KEY_HEADS * HIDDEN // HEADS


def config(layers: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        dtype="bfloat16",
    )


def model() -> LlamaForCausalLM:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return LlamaForCausalLM(config(int(os.environ.get(LAYERS, "32")))).eval()
    finally:
        torch.set_default_dtype(before)


def example_inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))}
