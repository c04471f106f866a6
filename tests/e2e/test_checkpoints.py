"""Checkpoints on disk give a model the tensors that transformers' own from_pretrained gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from torch import nn

from ir.checkpoint import Checkpoint
from ir.rearranged import Computed

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
PICTURES = {"image_size": 16, "patch_size": 8}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)),
    "tied": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**SMALL)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**SMALL, **EXPERTS, num_experts=4)),
    "deepseek_v3": lambda: hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(
            **SMALL | LATENT, **EXPERTS, n_routed_experts=4, n_group=2, topk_group=1, first_k_dense_replace=1
        )
    ),
    "gpt_oss": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**SMALL, head_dim=8, num_local_experts=4)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, **PICTURES)),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    ),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def assert_loaded_alike(model: nn.Module, folder: Path) -> Checkpoint:
    """Compare each tensor with what from_pretrained makes of the folder."""
    expected = type(model).from_pretrained(folder).state_dict()  # type: ignore[attr-defined]
    found = Checkpoint.open(folder).for_model(model)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name].to(tensor.dtype), tensor), name
    return found


@pytest.mark.parametrize("name", MODELS)
def test_as_from_pretrained(name: str, tmp_path: Path) -> None:
    made(name).save_pretrained(tmp_path, max_shard_size="40KB")  # type: ignore[operator]
    found = assert_loaded_alike(made(name), tmp_path)
    assert not [n for n, t in found.tensors.items() if isinstance(t, Computed)]
    assert not found.notes
