"""The configuration of a model says all that its GGUF file does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as t

from ir.checkpoint.formats.gguf.file import GgufFile
from ir.checkpoint.formats.gguf.settings import take_settings
from ir.errors import SourceError
from ir.sources.gguf_model import gguf_model

SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 96}


def file(architecture: str, tensors: dict[str, Any] | None = None, **fields: Any) -> GgufFile:
    """A file with fields of the architecture, whose dots are spelled `__`, and tensors."""
    said = {"general.architecture": architecture}
    said |= {f"{architecture}.{key.replace('__', '.')}": value for key, value in fields.items()}
    held = {key: SimpleNamespace(contents=lambda value=value: value) for key, value in said.items()}
    data = {"output.weight": torch.zeros(1), **(tensors or {})}
    entries = {n: SimpleNamespace(name=n, data=x.numpy(), shape=x.shape[::-1], tensor_type=0) for n, x in data.items()}
    return GgufFile(Path("x.gguf"), SimpleNamespace(dequantize=lambda data, _: data), held, entries)


def settled(config: Any, *args: Any, **fields: Any) -> Any:
    take_settings(config, file(*args, **fields))
    return config


def test_fields_that_transformers_does_not_read() -> None:
    qwen = settled(t.Qwen3Config(**SIZES), "qwen3", attention__key_length=16)
    assert (qwen.head_dim, qwen.tie_word_embeddings) == (16, False)
    window = settled(t.Phi3Config(**SIZES, pad_token_id=0), "phi3", attention__sliding_window=8)
    assert window.sliding_window == 8
    assert settled(window, "phi3", attention__sliding_window=0).sliding_window is None
    biased = settled(t.LlamaConfig(**SIZES), "llama", {"blk.0.attn_q.bias": torch.zeros(1)})
    assert (biased.attention_bias, biased.mlp_bias) == (True, False)
    rows = {"token_embd.weight": torch.zeros(80, 64), "position_embd.weight": torch.zeros(40, 64)}
    gpt2 = settled(t.GPT2Config(), "gpt2", rows, feed_forward_length=100)
    assert (gpt2.vocab_size, gpt2.n_positions, gpt2.n_inner) == (80, 40, 100)


def test_queries_of_gemma_are_scaled_by_the_size_of_the_model() -> None:
    small: Any = {**SIZES, "num_hidden_layers": 2}
    assert settled(t.Gemma2Config(**small), "gemma2", attention__key_length=32).query_pre_attn_scalar == 32
    large: Any = {**SIZES, "num_hidden_layers": 46}
    assert settled(t.Gemma2Config(**large), "gemma2", attention__key_length=32).query_pre_attn_scalar == 16


def test_groups_of_falcon() -> None:
    two = {"blk.0.attn_norm_2.weight": torch.zeros(1)}
    large = settled(t.FalconConfig(**SIZES), "falcon", two, attention__head_count_kv=2)
    assert (large.new_decoder_architecture, large.multi_query, large.num_kv_heads) == (True, False, 2)
    small = settled(t.FalconConfig(**SIZES), "falcon", attention__head_count_kv=1)
    assert (small.new_decoder_architecture, small.multi_query) == (False, True)


def test_positions_are_scaled() -> None:
    of = lambda config, *args, **fields: settled(config, *args, **fields).rope_parameters  # noqa: E731
    linear = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0, "rope__freq_base": 5e4}
    found = of(t.LlamaConfig(**SIZES), "llama", **linear)
    assert (found["rope_type"], found["factor"], found["rope_theta"]) == ("linear", 4.0, 5e4)
    gemma = of(t.Gemma3TextConfig(**SIZES), "gemma3", **linear, attention__key_length=16)
    assert (gemma["full_attention"]["factor"], gemma["sliding_attention"]["rope_type"]) == (4.0, "default")
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 32}
    found = of(t.LlamaConfig(**SIZES), "llama", **yarn)
    assert (found["rope_type"], found["original_max_position_embeddings"]) == ("yarn", 32)
    with pytest.raises(SourceError, match="scales positions by yarn, with settings that transformers has no words for"):
        of(t.LlamaConfig(**SIZES), "llama", **yarn, rope__scaling__attn_factor=2.0)
    half = of(t.StableLmConfig(**SIZES), "stablelm", rope__dimension_count=8)
    assert half["partial_rotary_factor"] == 0.5
    with pytest.raises(SourceError, match="turns 8 of 16 elements of each head, which llama of transformers does not"):
        of(t.LlamaConfig(**SIZES, head_dim=16), "llama", rope__dimension_count=8)
    both = {f"rope_factors_{name}.weight": torch.ones(8) for name in ("long", "short")}
    long = of(t.Phi3Config(**SIZES, pad_token_id=0), "phi3", both, rope__scaling__original_context_length=32)
    assert (long["rope_type"], long["long_factor"]) == ("longrope", [1.0] * 8)


def test_factors_of_llama3_are_recognised() -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = t.LlamaConfig(
        **SIZES, rope_parameters={**rope, "rope_theta": 5e5, "original_max_position_embeddings": 8192}
    )
    scaled = t.models.llama.modeling_llama.LlamaRotaryEmbedding(config).inv_freq
    plain = 1 / 5e5 ** (torch.arange(0, 16, 2) / 16)
    factors = {"rope_freqs.weight": plain / scaled}
    found = settled(t.LlamaConfig(**SIZES), "llama", factors, rope__freq_base=5e5)
    assert found.rope_parameters == config.rope_parameters
    with pytest.raises(SourceError, match=r"by factors that are not those of Llama 3.1"):
        settled(t.LlamaConfig(**SIZES), "llama", {"rope_freqs.weight": plain * 3}, rope__freq_base=5e5)


def test_files_of_other_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = file("llama")
    adapter.fields["general.type"] = SimpleNamespace(contents=lambda: "adapter")  # type: ignore[index]
    with pytest.raises(
        SourceError, match=r"x.gguf is an adapter in GGUF, which is not read: give the one of peft that"
    ):
        gguf_model(adapter, t)
    monkeypatch.setattr(t.AutoConfig, "from_pretrained", lambda *_, **__: t.T5Config())
    with pytest.raises(
        SourceError, match=r"ValueError: t5encoder is another kind of model; give the checkpoint that it"
    ):
        gguf_model(file("t5encoder"), t)
    monkeypatch.setattr(t.AutoConfig, "from_pretrained", lambda *_, **__: t.LlamaConfig(**SIZES))
    with pytest.raises(SourceError, match=r"x.gguf scales positions by yarn, with settings that transformers has no"):
        gguf_model(file("llama", rope__scaling__type="yarn"), t)
    with pytest.raises(SourceError, match=r"no decoder that transformers reads: .*head_dim"):
        gguf_model(file("llama", rope__dimension_count="x", attention__key_length="y"), t)


def test_kinds_that_transformers_calls_otherwise_or_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t.AutoConfig, "from_pretrained", lambda *_, **__: t.LlamaConfig(**SIZES))
    config, cls, _ = gguf_model(file("llama", expert_count=4, expert_used_count=2), t)
    assert (cls, config.num_local_experts, config.num_experts_per_tok) == (t.MixtralForCausalLM, 4, 2)
    yarn: dict[str, Any] = {
        "rope__scaling__type": "yarn",
        "rope__scaling__factor": 16.0,
        "rope__scaling__original_context_length": 64,
    }
    sizes: dict[str, Any] = {
        "embedding_length": 64,
        "block_count": 2,
        "attention__head_count": 4,
        "attention__key_length": 16,
    }
    config, cls, _ = gguf_model(file("gpt-oss", expert_count=4, **yarn, **sizes), t)
    assert (cls, config.hidden_size, config.rope_parameters["factor"]) == (t.GptOssForCausalLM, 64, 16.0)
