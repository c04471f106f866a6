"""Models that predict the next token: attention of every kind, experts, recurrences, and mixtures of them."""

from __future__ import annotations

from typing import Any

import transformers as t

from tests.zoo.entry import GROUPED, TEXT, TOKENS, Entry, causal, from_config, text, without_mask

EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 2, "topk_group": 1}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {"q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
MAMBA = {"mamba_d_state": 16, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_chunk_size": 8, "mamba_n_groups": 1}


def _grouped(kind: str, **options: Any) -> Entry:
    return causal(kind, **{**GROUPED, **options})


DECODERS = {
    # dense
    "apertus": _grouped("apertus"),
    "arcee": _grouped("arcee"),
    "biogpt": causal("biogpt"),
    "bitnet": _grouped("bitnet"),
    "bloom": causal("bloom"),
    "codegen": causal("codegen", rotary_dim=8),
    "cohere": _grouped("cohere"),
    "cohere2": _grouped("cohere2", sliding_window=8),
    "ctrl": causal("ctrl", dff=128),
    "cwm": _grouped("cwm", sliding_window=8),
    "diffllama": _grouped("diffllama"),
    "doge": _grouped("doge", keep_window_size=64),
    "ernie4_5": _grouped("ernie4_5"),
    "exaone4": _grouped("exaone4", sliding_window=8),
    "falcon": causal("falcon"),
    "gemma": _grouped("gemma"),
    "gemma2": _grouped("gemma2", sliding_window=8),
    "gemma3": _grouped("gemma3_text", sliding_window=8),
    "gemma3n": _grouped(
        "gemma3n_text",
        intermediate_size=[128] * 4,
        vocab_size_per_layer_input=128,
        hidden_size_per_layer_input=16,
        num_kv_shared_layers=2,
        laurel_rank=8,
        sliding_window=8,
        activation_sparsity_pattern=[0.5, 0.5, 0.0, 0.0],
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "glm": _grouped("glm"),
    "glm4": _grouped("glm4"),
    "gpt2": causal("gpt2"),
    "gpt_bigcode": causal("gpt_bigcode"),
    "gpt_neo": causal("gpt_neo", attention_types=[[["global", "local"], 2]], window_size=8),
    "gpt_neox": causal("gpt_neox"),
    "gpt_neox_japanese": causal("gpt_neox_japanese", intermediate_multiple_size=2),
    "gptj": causal("gptj", rotary_dim=8),
    "granite": _grouped("granite"),
    "helium": _grouped("helium"),
    "hunyuan_v1_dense": _grouped("hunyuan_v1_dense"),
    "llama": _grouped("llama"),
    "minicpm3": causal("minicpm3", **LATENT),
    "ministral": _grouped("ministral", sliding_window=8),
    "mistral": _grouped("mistral", sliding_window=8),
    "mpt": causal("mpt", expansion_ratio=2, max_seq_len=64),
    "nanochat": _grouped("nanochat"),
    "nemotron": _grouped("nemotron"),
    "olmo": _grouped("olmo"),
    "olmo2": _grouped("olmo2"),
    "olmo3": _grouped("olmo3", sliding_window=8),
    "openai_gpt": causal("openai-gpt"),
    "opt": causal("opt", ffn_dim=128, word_embed_proj_dim=64),
    "persimmon": causal("persimmon"),
    "phi": _grouped("phi"),
    "phi3": _grouped("phi3"),
    "qwen2": _grouped("qwen2"),
    "qwen3": _grouped("qwen3"),
    "seed_oss": _grouped("seed_oss"),
    "smollm3": _grouped("smollm3"),
    "stablelm": _grouped("stablelm"),
    "starcoder2": _grouped("starcoder2", sliding_window=8),
    "vaultgemma": _grouped("vaultgemma", sliding_window=8),
    "xglm": causal("xglm", d_model=64, ffn_dim=128, num_layers=4, attention_heads=4),
    "xlnet": Entry(
        from_config(t.AutoModelForCausalLM, "xlnet", **TOKENS, d_model=64, n_layer=4, n_head=4, d_inner=128, d_head=16),
        text,
        TEXT,
    ),
    # mixtures of experts
    "afmoe": _grouped("afmoe", **EXPERTS, sliding_window=8),
    "dbrx": Entry(
        from_config(
            t.AutoModelForCausalLM,
            "dbrx",
            **TOKENS,
            d_model=64,
            n_heads=4,
            n_layers=4,
            max_seq_len=64,
            attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            ffn_config={"hidden_size": 64, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        ),
        text,
        TEXT,
    ),
    "deepseek_v2": causal(
        "deepseek_v2", **LATENT, **ROUTED, first_k_dense_replace=1, topk_method="group_limited_greedy"
    ),
    "deepseek_v3": causal("deepseek_v3", **LATENT, **ROUTED, first_k_dense_replace=1),
    "dots1": _grouped("dots1", **ROUTED, n_shared_experts=1, first_k_dense_replace=1),
    "ernie4_5_moe": _grouped("ernie4_5_moe", **EXPERTS, moe_num_experts=4, moe_k=2),
    "flex_olmo": _grouped("flex_olmo", **EXPERTS),
    "glm4_moe": _grouped("glm4_moe", **ROUTED, first_k_dense_replace=1),
    "gpt_oss": _grouped("gpt_oss", **LOCAL, sliding_window=8),
    "granitemoe": _grouped("granitemoe", **LOCAL),
    "granitemoeshared": _grouped("granitemoeshared", **LOCAL, shared_intermediate_size=32),
    "hunyuan_v1_moe": _grouped("hunyuan_v1_moe", num_experts=4, moe_topk=2),
    "jetmoe": causal("jetmoe", **LOCAL, num_key_value_heads=2, kv_channels=16),
    "llama4": _grouped(
        "llama4_text", num_local_experts=4, intermediate_size_mlp=128, attention_chunk_size=8, no_rope_layer_interval=2
    ),
    "minimax_m2": _grouped("minimax_m2", **LOCAL),
    "mixtral": _grouped("mixtral", **LOCAL),
    "olmoe": _grouped("olmoe", **EXPERTS),
    "phimoe": _grouped("phimoe", **LOCAL),
    "qwen2_moe": _grouped("qwen2_moe", **EXPERTS),
    "qwen3_moe": _grouped("qwen3_moe", **EXPERTS),
    # recurrences, convolutions, and hybrids with attention
    "bamba": _grouped("bamba", **MAMBA, attn_layer_indices=[1, 3]),
    "falcon_h1": _grouped("falcon_h1", **MAMBA, mamba_d_ssm=128),
    "falcon_mamba": causal("falcon_mamba", state_size=8, time_step_rank=4),
    "granitemoehybrid": _grouped(
        "granitemoehybrid", **MAMBA, **LOCAL, shared_intermediate_size=32, layer_types=["mamba", "attention"] * 2
    ),
    "jamba": _grouped(
        "jamba", mamba_d_state=8, mamba_dt_rank=4, num_experts=4, attn_layer_period=2, attn_layer_offset=1
    ),
    "lfm2": _grouped("lfm2", layer_types=["conv", "full_attention"] * 2),
    "lfm2_moe": _grouped("lfm2_moe", **EXPERTS, num_dense_layers=1, layer_types=["conv", "full_attention"] * 2),
    "mamba": causal("mamba", state_size=8, time_step_rank=4),
    "mamba2": causal("mamba2", state_size=16, num_heads=8, head_dim=16, n_groups=1, chunk_size=8),
    "minimax": _grouped("minimax", **LOCAL, block_size=8, layer_types=["linear_attention", "full_attention"] * 2),
    "nemotron_h": _grouped(
        "nemotron_h",
        ssm_state_size=16,
        mamba_num_heads=4,
        mamba_head_dim=32,
        n_groups=1,
        chunk_size=8,
        layers_block_type=["mamba", "moe", "attention", "mamba"],
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32,
    ),
    "qwen3_next": _grouped(
        "qwen3_next",
        **EXPERTS,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        layer_types=["linear_attention", "full_attention"] * 2,
    ),
    "recurrent_gemma": _grouped("recurrent_gemma", lru_width=64, attention_window_size=8),
    "rwkv": causal("rwkv", attention_hidden_size=64),
    "xlstm": without_mask(causal("xlstm", embedding_dim=64, num_blocks=4, num_heads=4, chunk_size=8)),
    "zamba2": causal(
        "zamba2",
        mamba_d_state=16,
        n_mamba_heads=4,
        mamba_headdim=32,
        chunk_size=8,
        num_mem_blocks=1,
        adapter_rank=8,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
    ),
}
