"""LoRA that diffusers saved for a pipeline is an adapter of each model, scaled as its file says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ir.errors import SourceError
from ir.sources.libraries.diffusers_lora import pipeline_adapters
from ir.sources.libraries.diffusers_pipeline import diffusers_pipeline
from ir.sources.source import Reading

MODELS = ("unet", "text_encoder")


def factors(name: str, rank: int) -> dict[str, torch.Tensor]:
    return {f"{name}.lora_A.weight": torch.ones(rank, 6), f"{name}.lora_B.weight": torch.ones(4, rank)}


def saved(folder: Path, tensors: Mapping[str, torch.Tensor], **said: Any) -> Path:
    notes = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in said.items()})}
    save_file({**tensors}, folder / "pytorch_lora_weights.safetensors", notes if said else {"format": "pt"})
    return folder


def test_each_model_has_its_tensors_with_a_scale_of_one(tmp_path: Path) -> None:
    found = pipeline_adapters(saved(tmp_path, {**factors("unet.a.to_q", 2), **factors("text_encoder.q", 3)}), MODELS)
    assert {model: sorted(adapter.tensors) for model, adapter in found.items()} == {
        "unet": ["a.to_q.lora_A.weight", "a.to_q.lora_B.weight"],
        "text_encoder": ["q.lora_A.weight", "q.lora_B.weight"],
    }
    assert [adapter.scale("a.to_q") for adapter in found.values()] == [1, 1]


def test_the_file_says_settings_of_a_model(tmp_path: Path) -> None:
    tensors = {**factors("unet.to_q", 2), **factors("unet.to_k", 4)}
    (found,) = pipeline_adapters(saved(tmp_path, tensors, r=2, lora_alpha=6, rank_pattern={"to_k": 4}), MODELS).values()
    assert [found.scale(name) for name in ("to_q", "to_k")] == [3, 1.5]


def test_magnitudes_are_those_of_dora(tmp_path: Path) -> None:
    tensors = {**factors("unet.to_q", 2), "unet.to_q.lora_magnitude_vector": torch.ones(4)}
    assert pipeline_adapters(saved(tmp_path, tensors), MODELS)["unet"].settings["use_dora"]


def test_what_is_not_merged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"an adapter of peft is for one model of the pipeline: merge it into that"):
        pipeline_adapters(tmp_path, MODELS)
    for name in ("unet.to_q.processor.to_q_lora.down.weight", "transformer.to_q.lora_A.weight", "unet.to_q.alpha"):
        message = (
            rf"{re.escape(name)}, which is for none of unet, text_encoder as peft names it; merge it into the pipe"
        )
        with pytest.raises(SourceError, match=message):
            pipeline_adapters(saved(tmp_path, {name: torch.ones(2, 2)}), MODELS)
    two = {**factors("unet.to_q", 2), **factors("unet.to_k", 4)}
    with pytest.raises(SourceError, match=r"has LoRA of 2 ranks for unet, and nothing says its scale; merge it into"):
        pipeline_adapters(saved(tmp_path, two), MODELS)
    with pytest.raises(SourceError, match=r"has a aLoRA adapter, which is not merged"):
        pipeline_adapters(saved(tmp_path, factors("unet.to_q", 2), alora_invocation_tokens=[1]), MODELS)


def test_a_model_that_no_stage_runs(tmp_path: Path) -> None:
    index = {"_class_name": "APipeline", "unet": ["diffusers", "UNet2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    pipeline = diffusers_pipeline(tmp_path)
    assert pipeline is not None
    with pytest.raises(
        SourceError, match=r"there is LoRA for unet, which no stage would run: .* has no config.json of"
    ):
        pipeline.read(Reading(adapters=(saved(tmp_path, factors("unet.to_q", 2)),)))
