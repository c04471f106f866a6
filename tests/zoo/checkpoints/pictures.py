"""Folders of transformers for texts with images: any number of these, or those of given sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.support.models.small_llama import SMALL
from tests.zoo.checkpoints.kinds import Kind, Tried

CLIP = {"model_type": "clip_vision_model", **SMALL, "image_size": 16, "patch_size": 8, "projection_dim": 32}
SIGLIP = {"model_type": "siglip_vision_model", **SMALL, "image_size": 16, "patch_size": 8, "vision_use_head": False}
FINE = {**SMALL, "image_size": 16, "patch_size": 4, "vision_use_head": False}  # four patches make a token
LLAMA = {"model_type": "llama", **SMALL}
GEMMA = {"model_type": "gemma3_text", **SMALL, "num_key_value_heads": 2, "head_dim": 8}


def _left_padded(texts: Sequence[list[int]]) -> torch.Tensor:
    """The ids of texts, with zeros ahead of the shorter ones."""
    return torch.tensor([[0] * (max(map(len, texts)) - len(text)) + text for text in texts])


def pictures(kind: str, beside: Sequence[str] = (), **options: Any) -> Kind:
    """A folder called with three texts of other lengths than the example's, of no, one and two images of 4 tokens."""

    def make(folder: Path) -> Tried:
        torch.manual_seed(0)
        config = hf.AutoConfig.for_model(kind, image_token_index=90, image_token_id=90, **options)
        model = hf.AutoModelForImageTextToText.from_config(config).eval()
        model.save_pretrained(folder / "m")
        ids = torch.tensor(
            [[0] * 8 + [5, 6, 7, 8], [0] * 3 + [5] + [90] * 4 + [6, 7, 8, 9], [5] + [90] * 8 + [6, 7, 8]]
        )
        call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": torch.randn(3, 3, 16, 16)}
        call |= {name: (ids == 90).long() for name in beside}
        with torch.no_grad():
            wanted = model(**call).logits[ids > 0]
        return Tried(str(folder / "m"), call, wanted, run=lambda pipe, call: pipe(**call).logits[ids > 0])

    return make


Given = dict[str, torch.Tensor]
OTHER_GRIDS = [[1, 8, 12], [1, 2, 4], [1, 6, 2]]


def grids(kind: str, **of: Any) -> Kind:
    """A folder called with three texts of other lengths than the example's, of no, one and two images of other sizes.

    `of` are settings of the model.
    """

    def make(folder: Path) -> Tried:
        torch.manual_seed(0)
        config = hf.AutoConfig.for_model(
            kind, image_token_id=90, vision_start_token_id=91, vision_end_token_id=92, **of
        )
        model = hf.AutoModelForImageTextToText.from_config(config).eval()
        model.save_pretrained(folder / "m")
        first, *two = ([91, *[90] * (rows * columns // 4), 92] for _, rows, columns in OTHER_GRIDS)
        texts = [[5, 6, 7, 8], [5, *first, 6, 7, 8, 9], [5, *two[0], 6, *two[1], 7]]
        ids = _left_padded(texts)
        grid = torch.tensor(OTHER_GRIDS)
        pixels = torch.randn(int(grid.prod(1).sum()), 96)
        call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": pixels, "image_grid_thw": grid}
        call["mm_token_type_ids"] = (ids == 90).long()
        with torch.no_grad():
            wanted = model(**call).logits[ids > 0]
        return Tried(str(folder / "m"), call, wanted, run=lambda pipe, call: pipe(**call).logits[ids > 0])

    return make


def pixels(kind: str, **of: Any) -> Kind:
    """A folder called with three texts of other lengths than the example's, of no, one and two images of other sizes.

    `of` are settings of the model; 16 rows and columns of pixels make a token.
    """

    def make(folder: Path) -> Tried:
        torch.manual_seed(0)
        config = hf.AutoConfig.for_model(kind, image_token_index=90, image_token_id=90, **of)
        model = hf.AutoModelForImageTextToText.from_config(config).eval()
        model.save_pretrained(folder / "m")
        sizes = torch.tensor([[32, 48], [16, 32], [48, 16]])
        first, *two = ([90] * int(n) for n in (sizes // 16).prod(1))
        texts = [[5, 6, 7, 8], [5, *first, 6, 7, 8, 9], [5, *two[0], 6, *two[1], 7]]
        ids = _left_padded(texts)
        call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": torch.randn(3, 3, 48, 48)}
        call["image_sizes"] = sizes
        with torch.no_grad():
            wanted = model(**call).logits[ids > 0]
        return Tried(str(folder / "m"), call, wanted, run=lambda pipe, call: pipe(**call).logits[ids > 0])

    return make


def padded(kind: str, **of: Any) -> Kind:
    """A folder called with three texts of other lengths than the example's, of no, one and two images of 4 tokens.

    `of` are settings of the model, for which images of zeros are none; the first image of a text may be one.
    """

    def make(folder: Path) -> Tried:
        torch.manual_seed(0)
        model = hf.AutoModelForImageTextToText.from_config(
            hf.AutoConfig.for_model(kind, image_token_id=90, pad_token_id=0, **of)
        ).eval()
        model.save_pretrained(folder / "m")
        texts = [[5, 6, 7, 8], [5, *[90] * 4, 6, 7, 8, 9], [5, *[90] * 4, 6, *[90] * 4, 7]]
        ids = _left_padded(texts)
        images = torch.randn(3, 2, 3, 16, 16)
        images[0], images[1, 0] = 0, 0
        call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": images}
        call["pixel_attention_mask"] = (images != 0).any(2).long()
        with torch.no_grad():
            wanted = model(**call).logits[ids > 0]
        return Tried(str(folder / "m"), call, wanted, run=lambda pipe, call: pipe(**call).logits[ids > 0])

    return make


def sized(
    kind: str,
    fix: str,
    tokens: Sequence[int],
    images: Given,
    places: Callable[[Any, Given], Given] | None = None,
    **of: Any,
) -> Kind:
    """A folder called with three texts, two of them with an image: of the sizes of `fix`, in so many `tokens`.

    `of` are settings of the model; `places` makes positions of the tokens.
    """

    def make(folder: Path) -> Tried:
        torch.manual_seed(0)
        model = hf.AutoModelForImageTextToText.from_config(
            hf.AutoConfig.for_model(kind, image_token_index=90, image_token_id=90, **of)
        ).eval()
        model.save_pretrained(folder / "m")
        texts = [[5, 6, 7], *([5] + [90] * count + [6, 7, 8] for count in tokens)]
        ids = _left_padded(texts)
        call = {"input_ids": ids, "attention_mask": (ids > 0).long(), **images}
        call |= {} if places is None else places(model, call)
        with torch.no_grad():
            wanted = model(**call).logits[ids > 0]
        return Tried(
            str(folder / "m"), call, wanted, {"fix": [fix]}, run=lambda pipe, call: pipe(**call).logits[ids > 0]
        )

    return make


def rope_index(model: Any, call: Given) -> Given:
    """The positions of texts and images, as Qwen-VL counts them."""
    kinds = (call["input_ids"] == 90).int()
    grid, mask = call["image_grid_thw"], call["attention_mask"]
    places = model.model.get_rope_index(
        call["input_ids"], image_grid_thw=grid, attention_mask=mask, mm_token_type_ids=kinds
    )
    return {"position_ids": places[0]}


PIXELS = torch.linspace(-1, 1, 2 * 3 * 3 * 16 * 16).sin()
TILED: Given = {"pixel_values": PIXELS.view(2, 3, 3, 16, 16), "image_sizes": torch.tensor([[16, 32], [32, 16]])}
PATCHED: Given = {
    "pixel_values": PIXELS[: 24 * 96].view(24, 96),
    "image_grid_thw": torch.tensor([[1, 4, 4], [1, 2, 4]]),
}
WHOLE: Given = {**TILED, "pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)}
TILES = [[16, 32], [32, 16], [32, 32]]
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
SEEING = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
ONE_KEY = {"num_key_value_heads": 1}
LOOKING = {**SEEING, "intermediate_size": 32, "out_hidden_size": 32, "image_size": 16}
EXPERTS = {"moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
SPEAKING = {**LLAMA, "num_key_value_heads": 2, "head_dim": 8, "rope_parameters": ROPE}


PICTURES: dict[str, Kind] = {
    "Gemma 3, three texts with three images": pictures(
        "gemma3", ["token_type_ids"], vision_config=SIGLIP, text_config=GEMMA, mm_tokens_per_image=4
    ),
    "LLaVA, three texts with three images": pictures("llava", vision_config=CLIP, text_config=LLAMA),
    "LLaVA-NeXT, `--fix image_sizes=16x32,32x16`": sized(
        "llava_next",
        "image_sizes=16x32,32x16",
        (14, 16),
        TILED,
        vision_config=CLIP,
        text_config=LLAMA,
        image_grid_pinpoints=TILES,
    ),
    "LLaVA-OneVision, `--fix image_sizes=16x32,32x16`": sized(
        "llava_onevision",
        "image_sizes=16x32,32x16",
        (14, 16),
        TILED | {"batch_num_images": torch.ones(2, dtype=torch.int64)},
        vision_config=SIGLIP,
        text_config={**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2},
        image_grid_pinpoints=TILES,
    ),
    "Mistral 3, `--fix image_sizes=16x32,32x16`": sized(
        "mistral3",
        "image_sizes=16x32,32x16",
        (2, 2),
        WHOLE,
        vision_config={**CLIP, "model_type": "pixtral", "head_dim": 8},
        text_config={**LLAMA, "model_type": "mistral", "num_key_value_heads": 2},
        spatial_merge_size=2,
    ),
    "Mistral 3, three texts with three images of other sizes": pixels(
        "mistral3",
        vision_config={**CLIP, "model_type": "pixtral", "head_dim": 8},
        text_config={**LLAMA, "model_type": "mistral", "num_key_value_heads": 2},
        spatial_merge_size=2,
    ),
    "Pixtral, three texts with three images of other sizes": pixels(
        "llava",
        vision_config={**CLIP, "model_type": "pixtral", "head_dim": 8, "patch_size": 16},
        text_config={**LLAMA, "model_type": "mistral", "num_key_value_heads": 2},
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ),
    "Qwen2-VL, `--fix image_grid_thw=1x4x4,1x2x4`": sized(
        "qwen2_vl",
        "image_grid_thw=1x4x4,1x2x4",
        (4, 2),
        PATCHED,
        rope_index,
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4},
        text_config={**LLAMA, "model_type": "qwen2_vl_text", "num_key_value_heads": 2, "rope_parameters": ROPE},
        vision_start_token_id=91,
        vision_end_token_id=92,
    ),
    "Qwen2-VL, three texts with three images of other sizes": grids(
        "qwen2_vl",
        vision_config={**SEEING, "embed_dim": 16},
        text_config={**SPEAKING, "model_type": "qwen2_vl_text"},
    ),
    "Qwen2.5-VL, three texts with three images of other sizes": grids(
        "qwen2_5_vl",
        vision_config={
            **SEEING,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={**SPEAKING, "model_type": "qwen2_5_vl_text"},
    ),
    "Qwen3-VL, three texts with three images of other sizes": grids(
        "qwen3_vl",
        vision_config={
            **SEEING,
            "intermediate_size": 32,
            "out_hidden_size": 32,
            "num_position_embeddings": 49,
            "deepstack_visual_indexes": [0],
        },
        text_config={**SPEAKING, "model_type": "qwen3_vl_text"},
    ),
    "GLM-4V, three texts with three images of other sizes": grids(
        "glm4v", vision_config=LOOKING, text_config={**SPEAKING, "model_type": "glm4v_text"}
    ),
    "GLM-4.6V, three texts with three images of other sizes": grids(
        "glm46v",
        vision_config={**LOOKING, "model_type": "glm4v_vision"},
        text_config={**SPEAKING, "model_type": "glm4v_text"},
    ),
    "GLM-4V with experts, three texts with three images of other sizes": grids(
        "glm4v_moe",
        vision_config=LOOKING,
        text_config={
            **SPEAKING,
            **EXPERTS,
            "model_type": "glm4v_moe_text",
            "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0},
        },
    ),
    "Idefics 2, three texts with three images": padded(
        "idefics2",
        vision_config={**SMALL, "image_size": 16, "patch_size": 4},
        text_config={**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "pad_token_id": 0},
        perceiver_config={"resampler_n_latents": 4, "resampler_n_heads": 2, "resampler_head_dim": 16, **ONE_KEY},
    ),
    "Idefics 3, three texts with three images": padded(
        "idefics3",
        vision_config={**SMALL, "image_size": 16, "patch_size": 4},
        text_config=LLAMA,
        scale_factor=2,
    ),
    "SmolVLM, three texts with three images": padded(
        "smolvlm",
        vision_config={**SMALL, "image_size": 16, "patch_size": 4},
        text_config=LLAMA,
        scale_factor=2,
    ),
    "InternVL, three texts with three images": pictures(
        "internvl",
        vision_config={**FINE, "model_type": "internvl_vision", "image_size": [16, 16], "patch_size": [4, 4]},
        text_config={**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2},
        image_seq_length=4,
    ),
    "Aya Vision, three texts with three images": pictures(
        "aya_vision",
        vision_config={**FINE, "model_type": "siglip_vision_model"},
        text_config={**LLAMA, "model_type": "cohere2", "num_key_value_heads": 2},
        alignment_intermediate_size=64,
    ),
    "PaliGemma, three texts with three images": pictures(
        "paligemma",
        ["token_type_ids"],
        vision_config=SIGLIP,
        text_config={**GEMMA, "model_type": "gemma"},
        projection_dim=32,
    ),
}
