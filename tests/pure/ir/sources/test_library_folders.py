"""Folders of timm, open_clip and diffusers, by libraries that are stand-ins here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ir.errors import SourceError
from ir.sources import Reading, Source, read_source
from ir.sources.libraries.diffusers_calls import CALLS

TIMM = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 8, 8]}}
CLIP = {"model_cfg": {"vision_cfg": {"image_size": 8}, "text_cfg": {"context_length": 5, "vocab_size": 9}}}


class Net(nn.Module):
    pretrained_cfg = TIMM["pretrained_cfg"]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)


def folder(path: Path, name: str, settings: Any) -> Path:
    save_file({k: t.half() for k, t in Net().state_dict().items()}, path / "model.safetensors")
    (path / name).write_text(json.dumps(settings))
    return path


def read(path: Path, **reading: Any) -> Source:
    return read_source(str(path), Reading(**reading))


def test_timm_makes_its_model_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    made = SimpleNamespace(create_model=lambda name, pretrained: asked.append((name, pretrained)) or Net())
    monkeypatch.setitem(sys.modules, "timm", made)
    source = read(folder(tmp_path, "config.json", TIMM))
    assert source.kwargs["x"].shape == (2, 3, 8, 8)
    assert source.kwargs["x"].dtype == source.weights["layer.weight"].dtype == torch.float16
    assert next(source.model.parameters()).is_meta
    assert (source.dynamic_shapes, source.soft) == ({"x": {0: "batch"}}, True)
    assert source.library is not None
    assert source.library().get_parameter("layer.weight").dtype == torch.float16
    assert asked == [(f"local-dir:{tmp_path.resolve()}", False), (f"local-dir:{tmp_path.resolve()}", True)]
    wide = read(tmp_path, dtype=torch.float32)
    assert wide.library is not None
    assert wide.library().get_parameter("layer.weight").dtype == wide.kwargs["x"].dtype == torch.float32
    assert read(tmp_path, weights=False, dtype=torch.bfloat16).kwargs["x"].dtype == torch.bfloat16


def test_settings_of_old_timm_are_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda *_, **__: Net()))
    source = read(folder(tmp_path, "config.json", {"architecture": "resnet10t", **TIMM["pretrained_cfg"]}))
    assert source.kwargs["x"].shape == (2, 3, 8, 8)


class Features(nn.Module):
    """A part of a model under names of its own, as timm makes one of a model whose features alone are asked for."""

    pretrained_cfg = TIMM["pretrained_cfg"]

    def __init__(self, whole: Net) -> None:
        super().__init__()
        self.layer_0 = whole.layer


def test_weights_of_timm_are_loaded_as_timm_loads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(model: Net, pretrained_cfg: Any, filter_fn: Any) -> None:
        assert pretrained_cfg["source"] == ""
        model.load_state_dict(filter_fn(pretrained_cfg["state_dict"]), strict=False)

    def create(name: str, pretrained: bool) -> nn.Module:
        model = Net()
        if pretrained:
            renamed: Any = lambda state: {n.replace("old", "layer"): t for n, t in state.items()}  # noqa: E731
            builder.load_pretrained(model, pretrained_cfg={"source": "local-dir"}, filter_fn=renamed)
        return Features(model)

    builder = SimpleNamespace(load_pretrained=load)
    made = SimpleNamespace(create_model=create, models=SimpleNamespace(_builder=builder))
    monkeypatch.setitem(sys.modules, "timm", made)
    folder(tmp_path, "config.json", TIMM)
    stored = {"old.weight": torch.rand(4, 4), "old.bias": torch.rand(4)}
    for names in ("old", "layer_0"):  # the second as the parts themselves are saved
        save_file({n.replace("old", names): t for n, t in stored.items()}, tmp_path / "model.safetensors")
        source = read(tmp_path)
        assert torch.equal(source.weights["layer_0.weight"], stored["old.weight"])
        assert builder.load_pretrained is load


class Windows(nn.Module):
    """A module with a mask that it computes where its weights are."""

    pretrained_cfg = TIMM["pretrained_cfg"]

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.tied = self.layer.weight
        self.register_buffer("mask", torch.arange(4.0, device=self.layer.weight.device), persistent=False)


def test_masks_beside_weights_have_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda *_, **__: Windows()))
    model: Any = read(folder(tmp_path, "config.json", TIMM)).model
    assert torch.equal(model.mask, torch.arange(4.0).half())
    assert model.tied is model.layer.weight
    assert model.tied.is_meta


def test_the_library_is_no_measure_for_weights_that_it_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda *_, **__: Net()))
    folder(tmp_path, "config.json", TIMM)
    save_file({f"ema.{k}": t for k, t in Net().state_dict().items()}, tmp_path / "model.safetensors")
    assert read(tmp_path, prefix="ema.").library is None


def test_other_weights_in_place_of_those_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda *_, **__: Net()))
    folder(tmp_path, "config.json", TIMM)
    other = {name: torch.full_like(tensor, 7.0) for name, tensor in Net().state_dict().items()}
    save_file(other, tmp_path / "other.safetensors")
    source = read(tmp_path, checkpoint=tmp_path / "other.safetensors")
    assert torch.equal(source.weights["layer.weight"], other["layer.weight"])
    assert source.library is None


def test_one_of_several_models_in_a_folder(tmp_path: Path) -> None:
    sizes: Any = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    model.save_pretrained(tmp_path)
    second = tmp_path / "model_1.safetensors"
    save_file({name: torch.full_like(tensor, 7.0) for name, tensor in model.state_dict().items()}, second)
    with pytest.raises(SourceError, match="name one of these files with --checkpoint"):
        read(tmp_path)
    source = read(tmp_path, checkpoint=second)
    assert torch.equal(source.weights["model.norm.weight"], torch.full((8,), 7.0))
    assert source.library is None


def test_quantized_weights_stay_as_they_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=lambda *_, **__: Net()))
    how = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [4, 4]}}
    folder(tmp_path, "config.json", TIMM | how)
    codes, scale = torch.ones(4, 4).to(torch.float8_e4m3fn), torch.full((1, 1), 0.5)
    stored = {"layer.weight": codes, "layer.weight_scale_inv": scale, "layer.bias": torch.zeros(4)}
    save_file(stored, tmp_path / "model.safetensors")
    kept, plain = read(tmp_path), read(tmp_path, keep_quantized=False)
    assert [kept.weights["layer.weight"].dtype, plain.weights["layer.weight"].dtype] == [codes.dtype, torch.float32]
    assert all(any("fp8" in note for note in source.notes) and source.library is None for source in (kept, plain))


def test_open_clip_has_images_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(create_model=lambda name, load_weights: Net().to("cpu"))  # it moves what it made
    monkeypatch.setitem(sys.modules, "open_clip", made)
    (folder(tmp_path, "open_clip_config.json", CLIP) / "model.safetensors").rename(
        tmp_path / "open_clip_model.safetensors"
    )
    torch.save({}, tmp_path / "open_clip_pytorch_model.bin")  # the same weights once more, as the library saves them
    source = read(tmp_path)
    assert (source.kwargs["image"].shape, source.kwargs["text"].shape) == ((2, 3, 8, 8), (2, 5))
    assert set(source.weights) == {"layer.weight", "layer.bias"}


def test_a_library_that_is_not_here_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, "config.json", TIMM)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SourceError, match=r"is of the library timm, which is not here .*; pip install timm"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace())
    with pytest.raises(SourceError, match=r"timm makes no model of .*: AttributeError"):
        read(tmp_path)


SIZES: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "cross_attention_dim": 6,
    "joint_attention_dim": 6,
    "pooled_projection_dim": 5,
    "guidance_embeds": True,
    "num_embeds_ada_norm": 3,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 2,
    "projection_class_embeddings_input_dim": 17,
    "conditioning_embedding_out_channels": (4, 8),
    "conditioning_channels": 3,
    "caption_channels": 6,
    "use_additional_conditions": True,
    "text_dim": 6,
    "text_embed_dim": 6,
    "patch_size": (1, 2, 2),
    "rope_max_seq_len": 32,
}


class Config(dict[str, Any]):
    """A configuration as diffusers has it: its fields are attributes, too."""

    __getattr__ = dict.__getitem__


def test_pictures_have_any_size_and_unets_get_what_they_are_conditioned_by() -> None:
    plain = CALLS["UNet2DModel"](Config(SIZES))
    assert plain.dynamic == {"sample": {0: "batch", 2: "height", 3: "width"}}
    asking = {**SIZES, "num_class_embeds": 4, "time_cond_proj_dim": 7}
    call = CALLS["UNet2DConditionModel"](Config(asking))
    assert (call.inputs["class_labels"].shape, call.inputs["timestep_cond"].shape) == ((2,), (2, 7))
    assert int(call.inputs["class_labels"].max()) < 4
    assert "class_labels" not in CALLS["UNet2DModel"](Config({**asking, "class_embed_type": "identity"})).inputs


COG = {
    **SIZES,
    "patch_size": 2,
    "sample_frames": 49,
    "sample_height": 6,
    "sample_width": 8,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 9,
    "attention_head_dim": 16,
    "use_rotary_positional_embeddings": True,
}


def test_videos_have_frames() -> None:
    wan = CALLS["WanTransformer3DModel"](Config(SIZES))
    assert wan.inputs["hidden_states"].shape == (2, 4, 5, 32, 32)  # as far as positions go
    assert wan.dynamic["hidden_states"] == {0: "batch", 2: "frames", 3: "height", 4: "width"}
    of_images = CALLS["WanTransformer3DModel"](Config({**SIZES, "image_dim": 12}))
    assert of_images.inputs["encoder_hidden_states_image"].shape == (2, 257, 12)
    cog = CALLS["CogVideoXTransformer3DModel"](Config(COG))
    assert cog.inputs["hidden_states"].shape == (2, 13, 4, 6, 8)
    assert [part.shape for part in cog.inputs["image_rotary_emb"]] == [(13 * 3 * 4, 16)] * 2
    plain = CALLS["CogVideoXTransformer3DModel"](Config({**COG, "use_rotary_positional_embeddings": False}))
    assert "image_rotary_emb" not in plain.inputs


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_a_call_are_as_many_as_one_likes(name: str) -> None:
    call = CALLS[name](Config(COG if name.startswith("Cog") else SIZES))
    flat = {**call.inputs, **call.inputs.get("added_cond_kwargs", {})}
    shapes: Any = call.dynamic
    rows = {**shapes, **shapes.get("added_cond_kwargs", {})}
    for argument, tensor in flat.items():
        if isinstance(tensor, torch.Tensor) and tensor.dim() and argument not in ("img_ids", "txt_ids"):
            assert (tensor.shape[0], rows[argument][0]) == (2, "batch"), argument
    if name == "ControlNetModel":
        assert flat["controlnet_cond"].shape[2:] == (16, 16)
        assert flat["conditioning_scale"].shape == ()  # any number
    if name == "PixArtTransformer2DModel":
        small = CALLS[name](Config({**SIZES, "use_additional_conditions": None}))
        assert small.inputs["added_cond_kwargs"] == {"resolution": None, "aspect_ratio": None}
    if name == "UNet2DConditionModel":
        assert flat["text_embeds"].shape == (2, 5)
