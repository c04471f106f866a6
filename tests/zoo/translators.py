"""Encoder-decoders of text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.zoo.entry import Entry, Inputs, translator

BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}


def _bart(kind: str, **options: Any) -> Entry:
    return translator(kind, **{**BART, **options})


def _t5(kind: str, **options: Any) -> Entry:
    return translator(kind, **{**T5, "decoder_start_token_id": 0, **options})


def _with_target_mask(entry: Entry) -> Entry:
    """The same with a mask of the target text, without which the model asks whether any of its ids is padding."""

    def inputs(batch: int, seq: int) -> Inputs:
        given = entry.inputs(batch, seq)
        return given | {"decoder_attention_mask": torch.ones_like(given["decoder_input_ids"])}

    return replace(entry, inputs=inputs, dynamic={**entry.dynamic, "decoder_attention_mask": {0: "batch", 1: "target"}})


TRANSLATORS: dict[str, Entry] = {
    "bart": _bart("bart"),
    "bigbird_pegasus": _bart("bigbird_pegasus", attention_type="original_full"),
    "blenderbot": _bart("blenderbot"),
    "blenderbot_small": _bart("blenderbot-small"),
    "fsmt": _with_target_mask(_bart("fsmt", src_vocab_size=128, tgt_vocab_size=128, langs=["en", "de"])),
    "led": _bart("led", max_encoder_position_embeddings=64, max_decoder_position_embeddings=64, attention_window=8),
    "longt5": _t5("longt5", encoder_attention_type="local", local_radius=4),
    "longt5_global": _t5("longt5", encoder_attention_type="transient-global", local_radius=4, global_block_size=4),
    "m2m_100": _bart("m2m_100"),
    "marian": _bart("marian", decoder_vocab_size=128),
    "mbart": _bart("mbart"),
    "mt5": _t5("mt5"),
    "mvp": _bart("mvp"),
    "nllb_moe": _bart("nllb-moe", num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=64),
    "pegasus": _bart("pegasus"),
    "pegasus_x": _bart("pegasus_x", block_size=4, num_global_tokens=4),
    "plbart": _bart("plbart"),
    "prophetnet": translator(
        "prophetnet",
        hidden_size=64,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        max_position_embeddings=64,
        decoder_start_token_id=1,
    ),
    "switch_transformers": _t5(
        "switch_transformers",
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=64,
    ),
    "t5": _t5("t5"),
    "t5_gated": _t5("t5", feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "umt5": _t5("umt5"),
}
