"""Example inputs of models for texts with images: what their processors make beside ids and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers as t

from ir.sources.examples.example_inputs import make_example

BODY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
EYE: dict[str, Any] = {**BODY, "image_size": 16, "patch_size": 8}
TEXT: dict[str, Any] = {**BODY, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96}
LLAVA: dict[str, Any] = {
    "vision_config": {"model_type": "clip_vision_model", **EYE},
    "text_config": {"model_type": "llama", **TEXT},
}
GEMMA: dict[str, Any] = {
    "vision_config": {"model_type": "siglip_vision_model", **EYE, "vision_use_head": False},
    "text_config": {"model_type": "gemma3_text", **TEXT},
    "mm_tokens_per_image": 4,
}


@pytest.mark.parametrize(
    ("model", "beside"),
    [
        (t.LlavaForConditionalGeneration(t.LlavaConfig(**LLAVA, image_token_index=3)), ["attention_mask"]),
        (
            t.Gemma3ForConditionalGeneration(t.Gemma3Config(**GEMMA, image_token_index=3)),
            ["attention_mask", "token_type_ids"],
        ),
    ],
    ids=["llava", "gemma3"],
)
def test_texts_with_images_have_a_mask_and_the_places_of_images(model: Any, beside: list[str]) -> None:
    example = make_example(model, model.config, Path())
    ids, mask = example.inputs["input_ids"], example.inputs["attention_mask"]
    assert list(example.inputs) == ["input_ids", *beside, "pixel_values"]
    assert mask.shape == ids.shape
    assert example.dynamic["pixel_values"] == {0: "images"}  # as many as texts hold, not one each
    assert (ids[mask == 0] != 3).all()  # the shorter text ends behind its image
    assert (mask == 0).any(dim=1).tolist() == [True, False, False, False]
    if "token_type_ids" in beside:
        assert ((ids == 3) == (example.inputs["token_type_ids"] == 1)).all()
    assert list(make_example(model, model.config, Path(), padding=False).inputs) == ["input_ids", "pixel_values"]
