"""The results of `python -m tests.zoo.generation`, for docs/coverage.md."""

TEXTS = """\
## Texts, token by token

Greedy tokens of five texts of 2 to 30 tokens and 14 more, which join and leave a running batch in 3 stages, pass
windows and are prefilled in chunks, beside those of `model.generate()`, by `python -m tests.zoo.generation` in
float32. Equal are:

69 decoders that attend: apertus, arcee, biogpt, bitnet, bloom, codegen, cohere, cohere2, ctrl, cwm, diffllama,
ernie4_5, exaone4, falcon, gemma, gemma2, gemma3, gemma3n, glm, glm4, gpt2, gpt_bigcode, gpt_neo, gpt_neox,
gpt_neox_japanese, gptj, granite, helium, hunyuan_v1_dense, llama, minicpm3, ministral, mistral, mpt, nanochat,
nemotron, olmo, olmo2, olmo3, openai_gpt, opt, persimmon, phi, phi3, qwen2, qwen3, seed_oss, smollm3, stablelm,
starcoder2, vaultgemma, xglm, afmoe, dbrx, deepseek_v2, deepseek_v3, dots1, ernie4_5_moe, flex_olmo, glm4_moe,
gpt_oss, granitemoe, granitemoeshared, hunyuan_v1_moe, llama4, minimax_m2, mixtral, olmoe, phimoe. Of these gpt_neo
and openai_gpt run without a cache.

11 with recurrences: bamba, falcon_h1, falcon_mamba, granitemoehybrid, jamba, lfm2, mamba, mamba2, nemotron_h,
qwen3_next, zamba2.

10 with an encoder: bart, blenderbot, longt5, m2m_100, marian, mbart, mt5, pegasus, t5, whisper.

Others: transformers gives doge other tokens with its cache than without, and stages give those without; xlnet adds a
token and a mask of its own to each step of `generate`, so it is refused; jetmoe cannot be exported; rwkv, minimax,
recurrent_gemma and xlstm have caches of their own, and code that takes few lengths of a text without one.

Not run yet in this way: qwen2_moe, qwen3_moe.
"""
