"""The results of `python -m tests.zoo.generation`, for docs/coverage.md."""

TEXTS = """\
## Texts, token by token

Greedy tokens of five texts of 2 to 30 tokens and 14 more, which join and leave a running batch in 3 stages, pass
windows and are prefilled in chunks, beside those of `model.generate()`, by `python -m tests.zoo.generation -j 16`
in float32, torch 2.11, on 2026-11-29 (umt5: torch 2.13). Equal are:

72 of 75 decoders that attend: apertus, arcee, biogpt, bitnet, bloom, codegen, cohere, cohere2, ctrl, cwm,
diffllama, ernie4_5, exaone4, falcon, gemma, gemma2, gemma3, gemma3n, glm, glm4, gpt2, gpt_bigcode, gpt_neo,
gpt_neox, gpt_neox_japanese, gptj, granite, helium, hunyuan_v1_dense, llama, minicpm3, ministral, mistral, mpt,
nanochat, nemotron, olmo, olmo2, olmo3, openai_gpt, opt, persimmon, phi, phi3, qwen2, qwen3, seed_oss, smollm3,
stablelm, starcoder2, vaultgemma, xglm, afmoe, dbrx, deepseek_v2, deepseek_v3, dots1, ernie4_5_moe, flex_olmo,
glm4_moe, gpt_oss, granitemoe, granitemoeshared, hunyuan_v1_moe, lfm2_moe, llama4, minimax_m2, mixtral, olmoe,
phimoe, qwen2_moe, qwen3_moe. Of these gpt_neo and openai_gpt run without a cache.

10 of 15 with recurrences: bamba, falcon_h1, falcon_mamba, granitemoehybrid, jamba, lfm2, mamba, mamba2, nemotron_h,
zamba2; qwen3_next, equal in an earlier run, did not end in time.

16 of 23 with an encoder: bart, bigbird_pegasus, blenderbot, blenderbot_small, longt5, m2m_100, marian, mbart, mt5,
pegasus, pegasus_x, plbart, t5, t5_gated, umt5, whisper.

9 of 14 with an image before the text: aya_vision, gemma3_vision, internvl, llava, mistral3, qwen2_vl, qwen2_5_vl,
qwen3_vl, vipllava.

Others: transformers gives doge other tokens with its cache than without, and stages give those without; xlnet adds
a token and a mask of its own to each step of `generate`, so it is refused; jetmoe cannot be exported; rwkv,
minimax, recurrent_gemma and xlstm have caches of their own, and code that takes few lengths of a text without one.
Outside of the zoo, equal are bert (as a decoder), bert-generation, exaone_moe, gemma4_text, granite_swa, ministral3,
modernbert-decoder and youtu; roberta is refused, as `generate` gives its texts other positions than forward alone.

Of those with an encoder, fsmt, led, nllb_moe, prophetnet and switch_transformers are refused, as their code gives
other logits with a cache in pages, or fails; mvp cannot be exported; longt5_global takes sources of few lengths.

Of those with an image, idefics3 and smolvlm are tried as folders, below; paligemma and git have no cache that serves,
and blip_2 needs an image in each step.

Prompts with no, one and two images, of other sizes than the example's where these may be any, beside
`model.generate()` on folders of small models, torch 2.13, on 2026-11-30: equal are aya_vision, cohere2_vision,
deepseek_vl, gemma3, got_ocr2, idefics3, internvl, janus, llama4, llava, smolvlm and vipllava, with any number of
images of one size; and glm4v, glm46v, glm4v_moe, glm_ocr, idefics2, lighton_ocr, mistral3, pixtral (a llava),
qwen2_vl, qwen2_5_vl and qwen3_vl with any sizes. Plain calls of these, and of paligemma and blip_2, take what the
processor makes. Text alone, with a note: llava_next, llava_next_video and llava_onevision (`--fix image_sizes`),
ernie4_5_vl_moe (`--fix image_grid_thw`), mllama, lfm2_vl, gemma4 and deepseek_vl_hybrid. The grids of
qwen2_5_omni_thinker are fixed at those of the example, and texts of qwen3_5 at lengths of as many chunks of its
linear attention.
"""
