"""Encoders that fill in tokens."""

from __future__ import annotations

import transformers as t

from tests.zoo.entry import TEXT, TOKENS, Entry, from_config, masked, text, without_mask

ENCODERS: dict[str, Entry] = {
    "albert": masked("albert", embedding_size=32),
    "bert": masked("bert"),
    "big_bird": masked("big_bird", attention_type="original_full"),
    "camembert": masked("camembert", max_position_embeddings=80),
    "convbert": masked("convbert", embedding_size=32, head_ratio=2, conv_kernel_size=3),
    "data2vec_text": masked("data2vec-text", max_position_embeddings=80),
    "deberta": masked("deberta", relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "deberta_v2": masked("deberta-v2", relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8),
    "distilbert": masked("distilbert", hidden_dim=128),
    "electra": masked("electra", embedding_size=32),
    "ernie": masked("ernie"),
    "esm": masked("esm", mask_token_id=4, position_embedding_type="rotary"),
    "eurobert": masked("eurobert", num_key_value_heads=2, head_dim=16),
    "flaubert": masked("flaubert", emb_dim=64, n_layers=4, n_heads=4),
    "fnet": without_mask(masked("fnet")),
    "funnel": Entry(
        from_config(
            t.AutoModelForMaskedLM, "funnel", **TOKENS, block_sizes=[2, 2], d_model=64, n_head=4, d_head=16, d_inner=128
        ),
        text,
        TEXT,
    ),
    "ibert": masked("ibert", max_position_embeddings=80),
    "longformer": masked("longformer", attention_window=8, max_position_embeddings=80),
    "luke": masked("luke", entity_vocab_size=16, entity_emb_size=16, max_position_embeddings=80),
    "megatron_bert": masked("megatron-bert"),
    "mobilebert": masked("mobilebert", embedding_size=32, intra_bottleneck_size=32, num_feedforward_networks=2),
    "modernbert": masked("modernbert", global_attn_every_n_layers=2, local_attention=8),
    "mpnet": masked("mpnet", max_position_embeddings=80),
    "mra": masked("mra"),
    "nomic_bert": masked("nomic_bert"),
    "nystromformer": masked("nystromformer", num_landmarks=4, segment_means_seq_len=4),
    "rembert": masked("rembert", input_embedding_size=32, output_embedding_size=64),
    "roberta": masked("roberta", max_position_embeddings=80),
    "roberta_prelayernorm": masked("roberta-prelayernorm", max_position_embeddings=80),
    "roc_bert": masked("roc_bert", pronunciation_vocab_size=16, shape_vocab_size=16),
    "roformer": masked("roformer", embedding_size=32),
    "squeezebert": masked("squeezebert", embedding_size=64),
    "xlm": masked("xlm", emb_dim=64, n_layers=4, n_heads=4),
    "xlm_roberta": masked("xlm-roberta", max_position_embeddings=80),
    "xlm_roberta_xl": masked("xlm-roberta-xl", max_position_embeddings=80),
    "xmod": masked("xmod", max_position_embeddings=80, default_language="en_XX"),
    "yoso": masked("yoso", use_expectation=True),
}
