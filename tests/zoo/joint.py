"""Models of images and text together: towers side by side, images among the tokens, one reading the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as t

from tests.zoo.entry import BODY, GROUPED, TEXT, TOKENS, Entry, Inputs, from_config, ids, text

EYE = {k: v for k, v in BODY.items() if k != "max_position_embeddings"}
EYE |= {"image_size": 32, "patch_size": 8, "num_channels": 3, "projection_dim": 32}
WORDS = {**BODY, **TOKENS, "projection_dim": 32}
LLAMA = {"model_type": "llama", **BODY, **TOKENS, **GROUPED, "use_cache": False}
IMAGE = 3  # the token in whose places an image stands
PATCHES = 16

Speak = t.AutoModelForImageTextToText


def _pixels(batch: int, size: int = 32) -> torch.Tensor:
    return torch.randn(batch, 3, size, size)


def _both(batch: int, seq: int) -> Inputs:
    return text(batch, seq) | {"pixel_values": _pixels(batch)}


def _towers(batch: int, seq: int) -> Inputs:
    return {"input_ids": ids(batch + 1, seq), "pixel_values": _pixels(batch)}


def _among(places: int, pixels: Callable[[int], torch.Tensor] = _pixels, **more: Any) -> Callable[[int, int], Inputs]:
    """An image in its places between a first and the last tokens; `more` says what else goes with it."""

    def inputs(batch: int, seq: int) -> Inputs:
        words = ids(batch, places + seq).clamp(min=IMAGE + 1)
        words[:, 1 : places + 1] = IMAGE
        found = {"input_ids": words, "attention_mask": torch.ones_like(words), "pixel_values": pixels(batch)}
        return found | {name: make(words) for name, make in more.items()}

    return inputs


def _one_in_each(words: torch.Tensor) -> torch.Tensor:
    return torch.tensor([[1, 4, 4]] * len(words))


def _qwen_pixels(batch: int) -> torch.Tensor:
    return torch.randn(16 * batch, 3 * 2 * 8 * 8)


BOTH = {**TEXT, "pixel_values": {0: "batch"}}
TOWERS = {"input_ids": {0: "texts", 1: "seq"}, "pixel_values": {0: "images"}}


def _pair_of_towers(kind: str, text_config: dict[str, Any], vision_config: dict[str, Any], **options: Any) -> Entry:
    make = from_config(t.AutoModel, kind, text_config=text_config, vision_config=vision_config, **options)
    return Entry(make, _towers, TOWERS)


def _among_words(kind: str, inputs: Any, dynamic: Any = BOTH, **options: Any) -> Entry:
    make = from_config(Speak, kind, **{"image_token_index": IMAGE, "image_token_id": IMAGE, **options})
    return Entry(make, inputs, dynamic)


def _picking(kind: str) -> Entry:
    """A model that picks images by their values."""
    images = _among(4, lambda batch: _pixels(batch)[:, None])
    sizes = {"vision_config": EYE, "text_config": LLAMA, "scale_factor": 2, "pad_token_id": 0, "use_cache": False}
    return _among_words(kind, images, **sizes)


def _qwen(kind: str, vision: dict[str, Any], text_type: str) -> Entry:
    words = {**LLAMA, "model_type": text_type}
    words["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    vision = {"depth": 2, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, **vision}
    return _among_words(
        kind,
        _among(4, _qwen_pixels, image_grid_thw=_one_in_each, mm_token_type_ids=lambda words: (words == IMAGE).int()),
        {
            **TEXT,
            "pixel_values": {0: "patches"},
            "image_grid_thw": {0: "batch"},
            "mm_token_type_ids": TEXT["input_ids"],
        },
        vision_config=vision,
        text_config=words,
        video_token_id=5,
        vision_start_token_id=6,
        vision_end_token_id=7,
    )


CLIP_EYE = {"model_type": "clip_vision_model", **EYE}

JOINT: dict[str, Entry] = {
    "align": Entry(
        from_config(
            t.AutoModel,
            "align",
            text_config=WORDS,
            vision_config={"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320, "image_size": 64},
            projection_dim=80,
        ),
        lambda batch, seq: {"input_ids": ids(batch + 1, seq), "pixel_values": _pixels(batch, 64)},
        TOWERS,
    ),
    "altclip": _pair_of_towers(
        "altclip", {**WORDS, "project_dim": 32, "max_position_embeddings": 80}, EYE, projection_dim=32
    ),
    "aya_vision": _among_words(
        "aya_vision",
        _among(4),
        vision_config={"model_type": "siglip_vision_model", **EYE},
        text_config={**LLAMA, "model_type": "cohere2", "sliding_window": 8},
        alignment_intermediate_size=64,
    ),
    "blip": Entry(
        from_config(
            t.BlipForImageTextRetrieval,
            "blip",
            text_config={**WORDS, "encoder_hidden_size": 64},
            vision_config=EYE,
            projection_dim=32,
            image_text_hidden_size=32,
        ),
        _both,
        BOTH,
    ),
    "blip_2": _among_words(
        "blip-2",
        _among(4),
        vision_config=EYE,
        qformer_config={**BODY, **TOKENS, "encoder_hidden_size": 64, "cross_attention_frequency": 2},
        text_config={
            "model_type": "opt",
            **BODY,
            **TOKENS,
            "ffn_dim": 128,
            "word_embed_proj_dim": 64,
            "use_cache": False,
        },
        num_query_tokens=4,
        image_text_hidden_size=32,
    ),
    "bridgetower": Entry(
        from_config(
            t.AutoModel,
            "bridgetower",
            hidden_size=64,
            num_attention_heads=4,
            num_hidden_layers=2,
            text_config={**WORDS, "max_position_embeddings": 80},
            vision_config={**EYE, "num_hidden_layers": 4},
        ),
        _both,
        BOTH,
        "uncut, transformers leaves out the mask of the image, which it makes of ones; traced, for any batch, "
        "it cannot look at that mask, and adds it where its size does not fit. It would take values to be known while "
        "tracing also for tensors of sizes that may change, where all elements are the same",
    ),
    "chinese_clip": _pair_of_towers("chinese_clip", WORDS, EYE, projection_dim=32),
    "clip": _pair_of_towers("clip", WORDS, EYE, projection_dim=32),
    "clipseg": Entry(
        from_config(
            t.CLIPSegForImageSegmentation,
            "clipseg",
            text_config=WORDS,
            vision_config=EYE,
            projection_dim=32,
            extract_layers=[0, 1, 2],
            reduce_dim=16,
            decoder_intermediate_size=32,
        ),
        _both,
        BOTH,
    ),
    "gemma3_vision": _among_words(
        "gemma3",
        _among(4, token_type_ids=lambda words: (words == IMAGE).long()),
        {**BOTH, "token_type_ids": {0: "batch", 1: "seq"}},
        vision_config={"model_type": "siglip_vision_model", **EYE, "vision_use_head": False},
        text_config={**LLAMA, "model_type": "gemma3_text", "sliding_window": 8},
        mm_tokens_per_image=4,
        boi_token_index=4,
        eoi_token_index=5,
    ),
    "git": Entry(
        from_config(
            t.GitForCausalLM,
            "git",
            **{**BODY, **TOKENS},
            vision_config={**EYE, "model_type": "git_vision_model"},
            use_cache=False,
        ),
        _both,
        BOTH,
    ),
    "idefics3": _picking("idefics3"),
    "internvl": _among_words(
        "internvl",
        _among(4),
        vision_config={**EYE, "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={**LLAMA, "model_type": "qwen2"},
        image_seq_length=4,
    ),
    "layoutlm": Entry(
        from_config(t.LayoutLMForMaskedLM, "layoutlm", **{**BODY, **TOKENS}, max_2d_position_embeddings=64),
        lambda batch, seq: text(batch, seq) | {"bbox": torch.randint(0, 32, (batch, seq, 2)).repeat(1, 1, 2)},
        {name: {0: "batch", 1: "seq"} for name in ("input_ids", "attention_mask", "bbox")},
    ),
    "layoutlmv3": Entry(
        from_config(
            t.LayoutLMv3ForTokenClassification,
            "layoutlmv3",
            **{**BODY, **TOKENS, "max_position_embeddings": 80},
            max_2d_position_embeddings=1024,
            coordinate_size=8,
            shape_size=16,
            input_size=32,
            patch_size=8,
        ),
        lambda batch, seq: _both(batch, seq) | {"bbox": torch.randint(0, 32, (batch, seq, 2)).repeat(1, 1, 2)},
        {**BOTH, "bbox": {0: "batch", 1: "seq"}},
    ),
    "llava": _among_words(
        "llava", _among(PATCHES), vision_config=CLIP_EYE, text_config=LLAMA, image_seq_length=PATCHES
    ),
    "lxmert": Entry(
        from_config(
            t.LxmertModel,
            "lxmert",
            **{k: v for k, v in {**BODY, **TOKENS}.items() if k != "num_hidden_layers"},
            l_layers=2,
            x_layers=2,
            r_layers=1,
            visual_feat_dim=32,
        ),
        lambda batch, seq: (
            text(batch, seq) | {"visual_feats": torch.randn(batch, 5, 32), "visual_pos": torch.rand(batch, 5, 4)}
        ),
        {**TEXT, "visual_feats": {0: "batch"}, "visual_pos": {0: "batch"}},
    ),
    "mistral3": _among_words(
        "mistral3",
        _among(4, image_sizes=lambda words: torch.tensor([[32, 32]] * len(words))),
        {**BOTH, "image_sizes": {0: "batch"}},
        vision_config={"model_type": "pixtral", **EYE, "head_dim": 16},
        text_config={**LLAMA, "model_type": "mistral"},
        spatial_merge_size=2,
    ),
    "owlvit": Entry(
        from_config(t.OwlViTForObjectDetection, "owlvit", text_config=WORDS, vision_config=EYE, projection_dim=64),
        lambda batch, seq: {"input_ids": ids(2 * batch, seq), "pixel_values": _pixels(batch)},
        TOWERS,
    ),
    "paligemma": _among_words(
        "paligemma",
        _among(PATCHES),
        vision_config={"model_type": "siglip_vision_model", **EYE, "vision_use_head": False},
        text_config={**LLAMA, "model_type": "gemma"},
        projection_dim=64,
    ),
    "pix2struct": Entry(
        from_config(
            Speak,
            "pix2struct",
            text_config={
                **TOKENS,
                "hidden_size": 64,
                "d_kv": 16,
                "d_ff": 128,
                "num_layers": 2,
                "num_heads": 4,
                "use_cache": False,
            },
            vision_config={
                "hidden_size": 64,
                "patch_embed_hidden_size": 48,
                "d_ff": 128,
                "d_kv": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "seq_len": 64,
            },
        ),
        lambda batch, seq: {
            "flattened_patches": torch.cat([torch.randint(0, 16, (batch, 9, 2)).float(), torch.randn(batch, 9, 48)], 2),
            "attention_mask": torch.ones(batch, 9),
            "decoder_input_ids": ids(batch, seq),
        },
        {
            "flattened_patches": {0: "batch"},
            "attention_mask": {0: "batch"},
            "decoder_input_ids": {0: "batch", 1: "target"},
        },
    ),
    "qwen2_5_vl": _qwen(
        "qwen2_5_vl",
        {
            "hidden_size": 64,
            "out_hidden_size": 64,
            "intermediate_size": 128,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        "qwen2_5_vl_text",
    ),
    "qwen2_vl": _qwen("qwen2_vl", {"embed_dim": 64, "hidden_size": 64, "mlp_ratio": 2}, "qwen2_vl_text"),
    "qwen3_vl": _qwen(
        "qwen3_vl",
        {
            "hidden_size": 64,
            "out_hidden_size": 64,
            "intermediate_size": 128,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        "qwen3_vl_text",
    ),
    "siglip_both": _pair_of_towers("siglip", {**WORDS, "projection_size": 64}, EYE),
    "smolvlm": _picking("smolvlm"),
    "trocr": Entry(
        lambda: t.VisionEncoderDecoderModel(
            encoder=t.AutoModel.from_config(
                t.AutoConfig.for_model("vit", **{k: v for k, v in EYE.items() if k != "projection_dim"})
            ),
            decoder=t.AutoModelForCausalLM.from_config(
                t.AutoConfig.for_model(
                    "trocr",
                    **TOKENS,
                    d_model=64,
                    decoder_layers=2,
                    decoder_attention_heads=4,
                    decoder_ffn_dim=128,
                    max_position_embeddings=64,
                    cross_attention_hidden_size=64,
                    add_cross_attention=True,
                    is_decoder=True,
                    use_cache=False,
                )
            ),
        ),
        lambda batch, seq: {"pixel_values": _pixels(batch), "decoder_input_ids": ids(batch, seq)},
        {"pixel_values": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
    ),
    "vilt": Entry(
        from_config(t.ViltForQuestionAnswering, "vilt", **{**BODY, **TOKENS}, image_size=32, patch_size=8),
        lambda batch, seq: _both(batch, seq) | {"pixel_mask": torch.ones(batch, 32, 32, dtype=torch.int64)},
        {**BOTH, "pixel_mask": {0: "batch"}},
    ),
    "vipllava": _among_words(
        "vipllava",
        _among(PATCHES),
        vision_config=CLIP_EYE,
        text_config=LLAMA,
        image_seq_length=PATCHES,
        vision_feature_layers=[-2, 2, 3],
    ),
    "visual_bert": Entry(
        from_config(t.VisualBertModel, "visual_bert", **{**BODY, **TOKENS}, visual_embedding_dim=32),
        lambda batch, seq: (
            text(batch, seq)
            | {"visual_embeds": torch.randn(batch, 5, 32), "visual_attention_mask": torch.ones(batch, 5)}
        ),
        {**TEXT, "visual_embeds": {0: "batch"}, "visual_attention_mask": {0: "batch"}},
    ),
}
