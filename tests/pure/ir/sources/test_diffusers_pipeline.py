"""A pipeline of diffusers is one model, whose arguments name its parts; the library is a stand-in here."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5EncoderModel

from ir.errors import SourceError
from ir.sources import Reading, Source, read_source
from ir.sources.libraries.diffusers_calls import CALLS, METHODS

SIZES: dict[str, Any] = {"in_channels": 4, "sample_size": 16, "latent_channels": 2, "block_out_channels": (8, 8, 8)}


class Config(dict[str, Any]):
    """A configuration as diffusers has it: its fields are attributes, too."""

    __getattr__ = dict.__getitem__


class Model(nn.Module):
    config = Config(SIZES)

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(factor))

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample * self.scale + timestep

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z * self.scale

    @classmethod
    def load_config(cls, path: Path) -> float:
        return float(path.name == "vae")

    @classmethod
    def from_pretrained(cls, path: Path, **_: Any) -> Model:
        return cls(float(path.name == "vae"))

    @classmethod
    def from_config(cls, factor: float) -> Model:
        return cls(factor)


PARTS = {
    "_class_name": "APipeline",
    "_diffusers_version": "0.42",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "SafetyChecker"],
    "image_encoder": [None, None],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sys.modules, "diffusers", SimpleNamespace(UNet2DModel=Model, AutoencoderKL=Model))
    (tmp_path / "model_index.json").write_text(json.dumps(PARTS))
    for name, cls in (("unet", "UNet2DModel"), ("vae", "AutoencoderKL"), ("safety_checker", "SafetyChecker")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"_class_name": cls, "_diffusers_version": "0.42"}))
        save_file({"scale": torch.tensor(float(name == "vae"))}, tmp_path / name / "model.safetensors")
    return tmp_path


def read(path: Path, **reading: Any) -> Source:
    return read_source(str(path), Reading(**reading))


def test_each_call_of_each_model_is_a_program(folder: Path) -> None:
    source = read(folder)
    assert [call.name for call in source.calls] == ["unet", "vae_decode", "vae_encode"]
    assert [call.share for call in source.calls] == [30, 1, 1]
    assert source.kwargs["unet"]["timestep"].dtype == torch.float32
    assert source.calls[1].kwargs["vae_decode"]["z"].shape == (2, 2, 4, 4)
    assert source.calls[2].dynamic_shapes == {"vae_encode": {"x": {0: "batch", 2: "height", 3: "width"}}}
    assert dict(source.weights) == {"unet.scale": torch.tensor(0.0), "vae.scale": torch.tensor(1.0)}
    assert list(inspect.signature(source.model.forward).parameters) == ["unet", "vae_decode", "vae_encode"]
    [note] = source.notes
    assert note.startswith("safety_checker is left out, and the pipeline itself runs it: how pipelines call SafetyChec")
    assert source.library is not None
    loaded, ones = source.library(), torch.ones(2)
    assert torch.equal(loaded(vae_decode={"z": ones}), ones)
    assert torch.equal(loaded(unet={"sample": ones, "timestep": 3 * ones}), 3 * ones)


def test_a_model_that_takes_what_a_controlnet_gives_is_left_out(folder: Path) -> None:
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "controlnet": ["diffusers", "ControlNetModel"]}))
    notes = read(folder).notes
    assert "unet is left out, and the pipeline itself runs it: what it takes from a ControlNet is not known" in notes


def test_without_weights_nothing_but_configurations_is_read(folder: Path) -> None:
    for file in folder.glob("*/*.safetensors"):
        file.unlink()
    source = read(folder, weights=False)
    assert (source.weights, source.library) == ({}, None)
    assert all(parameter.is_meta for parameter in source.model.parameters())


def test_latents_are_as_many_times_smaller_as_there_are_blocks() -> None:
    calls = METHODS["AutoencoderKL"](Config({**SIZES, "block_out_channels": (8, 8)}), torch.float16)
    assert (calls["decode"].inputs["z"].shape, calls["encode"].inputs["x"].dtype) == ((2, 2, 8, 8), torch.float16)
    tiny = METHODS["AutoencoderTiny"](Config({**SIZES, "upsampling_scaling_factor": 4}), torch.float16)
    assert (tiny["decode"].inputs["x"].shape, tiny["encode"].inputs["x"].shape) == ((2, 2, 4, 4), (2, 4, 16, 16))
    codes = METHODS["VQModel"](Config(SIZES), torch.float16)["decode"].inputs
    assert (codes["h"].shape, codes["force_not_quantize"]) == ((2, 2, 4, 4), True)


@pytest.mark.parametrize(("pipeline", "masked"), [("PixArtAlphaPipeline", True), ("FluxPipeline", False)])
def test_some_pipelines_call_their_text_encoder_with_a_mask(pipeline: str, masked: bool, folder: Path) -> None:
    sizes: dict[str, Any] = {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_heads": 2, "num_layers": 1, "vocab_size": 9}
    T5EncoderModel(T5Config(**sizes)).save_pretrained(folder / "text_encoder")
    index = {"_class_name": pipeline, "text_encoder": ["transformers", "T5EncoderModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert ("attention_mask" in read(folder, weights=False).kwargs["text_encoder"]) is masked


def test_patches_and_tokens_of_flux_may_be_any_number() -> None:
    sizes = {"in_channels": 4, "joint_attention_dim": 8, "pooled_projection_dim": 8, "guidance_embeds": False}
    call = CALLS["FluxTransformer2DModel"](Config(sizes))
    assert call.dynamic == {
        "hidden_states": {0: "batch", 1: "patches"},
        "encoder_hidden_states": {0: "batch", 1: "tokens"},
        "pooled_projections": {0: "batch"},
        "timestep": {0: "batch"},
        "img_ids": {0: "patches"},
        "txt_ids": {0: "tokens"},
    }


def test_what_is_for_one_model_and_what_is_missing_is_refused(folder: Path) -> None:
    with pytest.raises(SourceError, match=r"is a pipeline of diffusers, and --generate is for one model"):
        read(folder, generate=True)
    with pytest.raises(SourceError, match=r"and --checkpoint is for one model"):
        read(folder, checkpoint=folder / "unet")
    with pytest.raises(SourceError, match=r"and --adapter keep is for one model"):
        read(folder, adapters=(folder,), keep_adapters=True)
    with pytest.raises(SourceError, match=r"no model of the pipeline .* has the variant fp16: leave it out"):
        read(folder, variant="fp16")
    (folder / "unet/model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"the folder .*unet is not a checkpoint: it has no model.safetensors"):
        read(folder)
    for name in ("unet", "vae"):
        (folder / name / "config.json").unlink()
    with pytest.raises(SourceError, match=r"is a pipeline of diffusers none of whose models is read: safety_checker"):
        read(folder)
