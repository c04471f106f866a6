"""Llama-like decoders of 7.2 or 70 billion parameters, or with fewer layers: a model file for the compiler."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SIZES, LAYERS = "TOKENS_SIZES", "TOKENS_LAYERS"  # the variables that say which, and how many


@dataclass(frozen=True)
class Sizes:
    """Those of a decoder; in bfloat16."""

    layers: int
    hidden: int
    inner: int
    heads: int
    vocabulary: int
    key_heads: int = 8

    def weight_bytes(self, layers: int) -> int:
        """Bytes of weights that a step reads: all but the embedding."""
        width = self.hidden // self.heads
        layer = 2 * self.hidden * (self.hidden + self.key_heads * width) + 3 * self.hidden * self.inner
        return 2 * (layers * layer + self.hidden * self.vocabulary)

    def key_bytes(self, layers: int) -> int:
        """Bytes of keys and values of one token."""
        return 2 * 2 * layers * self.key_heads * self.hidden // self.heads


NAMED = {"7b": Sizes(32, 4096, 14336, 32, 32000), "70b": Sizes(80, 8192, 28672, 64, 128256)}
VOCABULARY = min(sizes.vocabulary for sizes in NAMED.values())  # of prompts


def environment(sizes: str, layers: int) -> dict[str, str]:
    """The environment in which this file is a model of these sizes and so many layers."""
    return {**os.environ, SIZES: sizes, LAYERS: str(layers)}


def config(sizes: str, layers: int) -> LlamaConfig:
    named = NAMED[sizes]
    return LlamaConfig(
        hidden_size=named.hidden,
        intermediate_size=named.inner,
        num_hidden_layers=layers,
        num_attention_heads=named.heads,
        num_key_value_heads=named.key_heads,
        vocab_size=named.vocabulary,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        dtype="bfloat16",
    )


def model() -> LlamaForCausalLM:
    sizes = os.environ.get(SIZES, "7b")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        return LlamaForCausalLM(config(sizes, int(os.environ.get(LAYERS, NAMED[sizes].layers)))).eval()
    finally:
        torch.set_default_dtype(before)


def example_inputs() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))}
