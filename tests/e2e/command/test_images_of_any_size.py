"""Folders of models whose images have any sizes and number, in calls and before texts that are continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from runtime import InputError, Pipeline
from tests.support.running.commands import Shell

pytestmark = pytest.mark.slow

IMAGE, START, END = 3, 6, 7


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell.open(tmp_path, monkeypatch, capsys)


def saved(model: Any, folder: Path) -> Any:
    """A model that writes as many tokens as it is asked for, and its folder."""
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, None
    model.eval().save_pretrained(folder)
    return model


def padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """The ids of texts, padded on the left."""
    return torch.tensor([[0] * (max(map(len, rows)) - len(row)) + row for row in rows])


def seeing(shell: Shell) -> Any:
    """A Qwen2.5-VL, whose tower attends within windows, and its folder."""
    vision = {"depth": 2, "num_heads": 2, "patch_size": 4, "hidden_size": 32, "intermediate_size": 32}
    vision |= {"out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1]}
    words: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    words |= {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32, "use_cache": False}
    words |= {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 256}
    words["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    ids = dict[str, Any](image_token_id=IMAGE, vision_start_token_id=START, vision_end_token_id=END, video_token_id=5)
    config = t.Qwen2_5_VLConfig(text_config=words, vision_config=vision, **ids)
    return saved(t.Qwen2_5_VLForConditionalGeneration(config), shell.folder / "vl")


def looking(shell: Shell) -> Any:
    """A GLM-4V, whose tower resizes its table of positions for each image, and its folder."""
    body: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    eye = {"depth": 1, "num_heads": 2, "patch_size": 4, "hidden_size": 32, "intermediate_size": 32}
    words = {**body, "num_hidden_layers": 1, "num_key_value_heads": 2, "vocab_size": 32, "pad_token_id": 0}
    words |= {"bos_token_id": 0, "eos_token_id": 0, "max_position_embeddings": 256}
    words["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    ids = dict[str, Any](image_token_id=IMAGE, image_start_token_id=START, image_end_token_id=END, video_token_id=5)
    config = t.Glm4vConfig(text_config=words, vision_config={**eye, "out_hidden_size": 32, "image_size": 16}, **ids)
    return saved(t.Glm4vForConditionalGeneration(config), shell.folder / "vl")


def texts_with_images(*texts: list[list[int]]) -> dict[str, Any]:
    """Texts around images of these grids, padded on the left, and what the processor makes beside their ids."""
    grid = torch.tensor([image for images in texts for image in images])
    rows = []
    for images in texts:
        places = ([START, *[IMAGE] * (frames * height * width // 4), END] for frames, height, width in images)
        rows.append([9, 10, *chain.from_iterable(places), *torch.randint(8, 32, (5,)).tolist()])
    ids = padded(rows)
    pixels = torch.randn(int(grid.prod(1).sum()), 3 * 2 * 4 * 4)
    call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": pixels, "image_grid_thw": grid}
    return {**call, "mm_token_type_ids": (ids == IMAGE).long()}


def test_a_folder_takes_images_of_any_grids(shell: Shell) -> None:
    model = seeing(shell)
    ended = shell.run("vl -o out --stages 2 --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for texts in ([[[1, 6, 10]]], [[[1, 2, 2]], [[2, 4, 6], [1, 10, 4]]]):
            call = texts_with_images(*texts)
            with torch.no_grad():
                wanted = model(**call, use_cache=False).logits
            real = call["attention_mask"] > 0
            torch.testing.assert_close(pipe(**call).logits[real], wanted[real])
        grid = call["image_grid_thw"]
        call["image_grid_thw"] = grid.flip(0)
        described = r"has runs of 1 that are \[1, 12, 10\] long; `image_grid_thw` describes \[10, 12, 1\]"
        with pytest.raises(InputError, match=described):
            pipe(**call)
        call["image_grid_thw"] = torch.tensor([[1, 2, 2], [2, 4, 6], [1, 10, 2]])
        with pytest.raises(InputError, match=r"`image_grid_thw` describes 72 rows in all; .* have patches = 92"):
            pipe(**call)


@pytest.mark.parametrize("make", [seeing, looking])
def test_images_of_any_grids_stand_before_texts_that_are_continued(shell: Shell, make: Callable[[Shell], Any]) -> None:
    model = make(shell)
    ended = shell.run("vl -o out --stages 2 --generate --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for texts in ([[[1, 6, 10]]], [[[1, 4, 4]], [[1, 4, 6], [1, 10, 4]]]):
            call = texts_with_images(*texts)
            wanted: Any = model.generate(**{**call, "max_new_tokens": 6, "do_sample": False})
            ids = call.pop("input_ids")
            assert torch.equal(pipe.generate(ids, **{**call, "max_new_tokens": 6}), wanted)


def llava(shell: Shell) -> Any:
    """A LLaVA whose images take four places each, and its folder."""
    body: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    body["num_attention_heads"] = 2
    eye = {"model_type": "clip_vision_model", **body, "image_size": 16, "patch_size": 8}
    words = {"model_type": "llama", **body, "vocab_size": 32, "max_position_embeddings": 256}
    config = t.LlavaConfig(vision_config=eye, text_config=words, image_token_index=IMAGE)
    return saved(t.LlavaForConditionalGeneration(config), shell.folder / "llava")


def test_any_number_of_images_stands_before_texts_that_are_continued(shell: Shell) -> None:
    model = llava(shell)
    ended = shell.run("llava -o out --stages 2 --generate --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    places = [IMAGE] * 4
    texts = [[9, *places, 10, *places, 11, *places, 12], [9, 10, 11], [9, *places, 8]]
    ids = padded(texts)
    call = {"attention_mask": (ids > 0).long(), "pixel_values": torch.randn(4, 3, 16, 16), "max_new_tokens": 6}
    given: Any = {**call, "do_sample": False}
    wanted = model.generate(ids, **given)
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        assert torch.equal(pipe.generate(ids, **call), wanted)
        with pytest.raises(InputError, match="the prompts have places of 4 images, and `pixel_values` has 3"):
            pipe.generate(ids, **{**call, "pixel_values": call["pixel_values"][1:]})


def mistral(shell: Shell) -> Any:
    """A Mistral 3, whose tower is told the sizes of images, and its folder."""
    body: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    body |= {"num_attention_heads": 2, "head_dim": 16}
    eye = {"model_type": "pixtral", **body, "image_size": 64, "patch_size": 4}
    words = {"model_type": "mistral", **body, "num_key_value_heads": 1, "vocab_size": 32}
    config = t.Mistral3Config(vision_config=eye, text_config=words, image_token_index=IMAGE, spatial_merge_size=2)
    return saved(t.Mistral3ForConditionalGeneration(config), shell.folder / "mistral")


def texts_with_sizes(*texts: list[list[int]]) -> dict[str, Any]:
    """Texts around images of so many rows and columns of pixels, padded on the left."""
    sizes = torch.tensor([image for images in texts for image in images])
    rows = []
    for images in texts:
        places = ([*[IMAGE] * ((height // 8) * (width // 8)), 11] for height, width in images)
        rows.append([9, 10, *chain.from_iterable(places), *torch.randint(8, 32, (5,)).tolist()])
    ids = padded(rows)
    pixels = torch.randn(len(sizes), 3, *sizes.amax(0).tolist())
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": pixels, "image_sizes": sizes}


def test_a_folder_takes_images_of_any_sizes_in_pixels(shell: Shell) -> None:
    model = mistral(shell)
    ended = shell.run("mistral -o out --stages 2 --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for texts in ([[[24, 40]]], [[[8, 16]], [], [[32, 20], [16, 16]]]):
            call = texts_with_sizes(*texts)
            with torch.no_grad():
                wanted = model(**call, use_cache=False).logits
            real = call["attention_mask"] > 0
            torch.testing.assert_close(pipe(**call).logits[real], wanted[real])
        call["image_sizes"] = torch.tensor([[8, 16], [16, 16], [16, 16]])
        with pytest.raises(InputError, match=r"holds the value 3 14 times; `image_sizes` describes 2 \+ 4 \+ 4"):
            pipe(**call)


def test_images_of_any_sizes_in_pixels_stand_before_texts_that_are_continued(shell: Shell) -> None:
    model = mistral(shell)
    ended = shell.run("mistral -o out --stages 2 --generate --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        call = texts_with_sizes([[24, 40]], [], [[8, 16], [16, 16]])
        wanted: Any = model.generate(**{**call, "max_new_tokens": 6, "do_sample": False})
        ids = call.pop("input_ids")
        assert torch.equal(pipe.generate(ids, **{**call, "max_new_tokens": 6}), wanted)


def idefics(shell: Shell) -> Any:
    """An Idefics 2, which leaves out images of zeros, and makes four places of one of any sizes, and its folder."""
    body: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    body["num_attention_heads"] = 2
    eye = {**body, "image_size": 16, "patch_size": 4}
    words = {"model_type": "mistral", **body, "num_key_value_heads": 1, "vocab_size": 32, "pad_token_id": 0}
    shape: dict[str, Any] = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2}
    shape |= {"resampler_head_dim": 16, "num_key_value_heads": 1}
    config = t.Idefics2Config(vision_config=eye, text_config=words, perceiver_config=shape, image_token_id=IMAGE)
    return saved(t.Idefics2ForConditionalGeneration(config), shell.folder / "idefics")


def texts_with_padding(*texts: list[list[int]]) -> dict[str, Any]:
    """Texts around images of so many rows and columns of pixels; an image of none is padding."""
    sides = torch.tensor([image for images in texts for image in images]).amax(0).tolist()
    pixels = torch.zeros(len(texts), max(map(len, texts)), 3, *sides)
    mask, rows = torch.zeros_like(pixels[:, :, 0]).long(), list[list[int]]()
    for text, images in enumerate(texts):
        for i, (height, width) in enumerate(images):
            pixels[text, i, :, :height, :width] = torch.randn(3, height, width)
            mask[text, i, :height, :width] = 1
        places = chain.from_iterable([*[IMAGE] * 4, 11] for image in images if all(image))
        rows.append([9, 10, *places, *torch.randint(8, 32, (5,)).tolist()])
    ids = padded(rows)
    call = {"input_ids": ids, "attention_mask": (ids > 0).long(), "pixel_values": pixels}
    return {**call, "pixel_attention_mask": mask}


def test_images_with_padding_stand_before_texts_that_are_continued(shell: Shell) -> None:
    model = idefics(shell)
    ended = shell.run("idefics -o out --stages 2 --generate --draw stages --time-limit 1 --size-limit 0")
    assert ended.status == 0, ended.err
    with Pipeline.load(shell.folder / "out", devices=["cpu"]) as pipe:
        for texts in ([[[16, 24]]], [[[0, 0], [8, 16]], [], [[12, 20], [16, 8], [4, 16]]]):
            call = texts_with_padding(*texts)
            wanted: Any = model.generate(**{**call, "max_new_tokens": 6, "do_sample": False})
            ids = call.pop("input_ids")
            assert torch.equal(pipe.generate(ids, **{**call, "max_new_tokens": 6}), wanted)
        call["pixel_values"][2, 0] = 0
        with pytest.raises(InputError, match="a prompt has 12 tokens 3, and its images that are not zeros take 8"):
            pipe.generate(ids, **call, max_new_tokens=6)
