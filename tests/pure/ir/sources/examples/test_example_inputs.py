"""Example inputs of models for texts with images: what their processors make beside ids and pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from ir.errors import SourceError
from ir.sources.checkpoint_folder import _example_for
from ir.sources.examples.example_inputs import make_example
from ir.sources.examples.image_tokens import places_of_any_number

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


def test_images_whose_rows_are_computed_behind_the_tower_have_their_places() -> None:
    eye = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 1}
    eye |= {"image_size": 16, "patch_size": 4, "vision_output_dim": 32, "projector_output_dim": 32}
    words = {**TEXT, "intermediate_size_mlp": 64, "num_local_experts": 2, "pad_token_id": 0}
    config = t.Llama4Config(vision_config={**eye, "projector_input_dim": 32}, text_config=words, image_token_index=3)
    model = t.Llama4ForConditionalGeneration(config)
    example = make_example(model, model.config, Path())
    assert (example.inputs["input_ids"] == 3).sum(dim=1).tolist() == [4, 4, 4, 4]
    assert example.dynamic["pixel_values"] == {0: "images"}


def test_the_places_of_any_number_of_images_are_known_where_no_code_fixes_it() -> None:
    model = t.LlavaForConditionalGeneration(t.LlavaConfig(**LLAVA, image_token_index=3))
    assert places_of_any_number(model, torch.randn(2, 3, 16, 16), 3) == 4
    eye = {"model_type": "pixtral", **EYE, "head_dim": 16}
    whole = t.LlavaConfig(**{**LLAVA, "vision_config": eye}, image_token_index=3, vision_feature_layer=-1)
    assert places_of_any_number(t.LlavaForConditionalGeneration(whole), torch.randn(2, 3, 16, 16), 3) == 0


TILES = [[16, 32], [32, 16], [32, 32]]
SIZED: dict[str, tuple[Any, tuple[int, ...], list[int]]] = {  # model, pixels of two images, tokens of each
    "tiles": (
        lambda: t.LlavaNextForConditionalGeneration(
            t.LlavaNextConfig(**LLAVA, image_token_index=3, image_grid_pinpoints=TILES)
        ),
        (2, 5, 3, 16, 16),
        [4 + 2 * (4 + 1), 4 + 4 * (4 + 1)],
    ),
    "whole": (
        lambda: t.Mistral3ForConditionalGeneration(
            t.Mistral3Config(
                vision_config={"model_type": "pixtral", **EYE, "head_dim": 16},
                text_config={"model_type": "mistral", **TEXT},
                image_token_index=3,
                spatial_merge_size=2,
            )
        ),
        (2, 3, 32, 32),
        [1 * 2, 2 * 2],
    ),
}


class TestImagesOfSizes:
    """Models that take images apart by their sizes, in pixels: in tiles of one size, or each whole."""

    @pytest.mark.parametrize("kind", SIZED)
    def test_stand_in_texts_of_any_number_and_length(self, kind: str) -> None:
        make, pixels, tokens = SIZED[kind]
        model, sizes = make(), torch.tensor([[16, 32], [32, 32]])
        example = make_example(model, model.config, Path(), images={"image_sizes": sizes})
        assert example.inputs["pixel_values"].shape == pixels
        assert torch.equal(example.inputs["image_sizes"], sizes)
        assert (example.inputs["input_ids"] == 3).sum(dim=1).tolist() == [*tokens, 0, 0]
        assert (example.inputs["attention_mask"] == 0).any(dim=1).tolist() == [True, False, False, False]
        assert example.dynamic["input_ids"].keys() == example.dynamic["attention_mask"].keys() == {0, 1}
        with torch.no_grad():
            model(**example.inputs)  # asserts that tokens and rows of images are as many
        one = make_example(model, model.config, Path(), texts=1, images={"image_sizes": sizes})
        assert (one.inputs["input_ids"] == 3).sum(dim=1).tolist() == [sum(tokens)]
        assert one.inputs["attention_mask"].all()
        unsaid = make_example(model, model.config, Path())
        if kind == "whole":
            assert unsaid.dynamic["pixel_values"] == {0: "images", 2: "height", 3: "width"}
            assert unsaid.inputs["image_sizes"].tolist() == [[128, 128], [96, 160]]
            return
        assert unsaid.notes == (
            "text alone: --fix image_sizes=336x336 reads an image of 336 rows of 336 pixels; several make variants",
        )

    def test_that_the_model_cannot_have_are_refused(self) -> None:
        model = SIZED["whole"][0]()
        for sizes, message in (
            ([[16, 32, 3]], r"`image_sizes` has 2 numbers an image, and \[\[16, 32, 3\]\] is given"),
            ([[4, 4]], r"images of \[\[4, 4\]\] do not fit Mistral3ForConditionalGeneration: "),
            ([[0, 32]], r"`image_sizes` has numbers of 1 or more, and \[\[0, 32\]\] is given"),
        ):
            with pytest.raises(SourceError, match=message):
                make_example(model, model.config, Path(), images={"image_sizes": torch.tensor(sizes)})

    def test_are_not_made_for_an_input_that_the_model_lacks(self) -> None:
        model = SIZED["whole"][0]()
        make = partial(make_example, model, model.config, Path())
        assert _example_for(model, make, {"image_grid_thw": torch.tensor([[1, 4, 4]])}) is None


def test_images_of_grids_stand_in_texts_of_any_number() -> None:
    eye = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 2}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    words = {**TEXT, "rope_parameters": rope}
    ids: dict[str, Any] = {"image_token_id": 3, "vision_start_token_id": 6, "vision_end_token_id": 7}
    model = t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(vision_config=eye, text_config=words, **ids))
    grid = torch.tensor([[1, 4, 4], [1, 4, 8]])
    example = make_example(model, model.config, Path(), images={"image_grid_thw": grid})
    assert (example.inputs["input_ids"] == 3).sum(dim=1).tolist() == [4, 8, 0, 0]
    assert example.inputs["position_ids"].shape == (3, *example.inputs["input_ids"].shape)
    assert (example.dynamic["input_ids"].keys(), example.dynamic["position_ids"].keys()) == ({0, 1}, {1, 2})
    with torch.no_grad():
        model(**example.inputs)
    half = torch.tensor([[1, 3, 4]])
    message = r"images of \[\[1, 3, 4\]\] do not fit: 2 rows and columns of patches make a token"
    with pytest.raises(SourceError, match=message):
        make_example(model, model.config, Path(), images={"image_grid_thw": half})
