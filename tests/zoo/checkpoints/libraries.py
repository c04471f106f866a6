"""Folders that timm, open_clip and diffusers write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.zoo.checkpoints.kinds import Kind, Tried, first_tensor


def written_by(library: str, write: Callable[[Any, Path], tuple[Any, dict[str, Any]]], **bare: Any) -> Kind:
    """The folder that a library saves: `write` returns the model and a call.

    Where the library is not installed, a folder with the settings `bare` by the names of their files is refused.
    """

    def make(folder: Path) -> Tried:
        folder = folder / "m"
        folder.mkdir()
        if find_spec(library) is None:
            for name, settings in bare.items():
                (folder / f"{name}.json").write_text(json.dumps(settings))
            return Tried(str(folder), {}, None)
        torch.manual_seed(0)
        model, call = write(import_module(library), folder)
        with torch.no_grad():
            expected = model.eval()(**call)
        return Tried(str(folder), call, first_tensor(expected))

    return make


def unet(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    model = diffusers.UNet2DModel(8, **blocks, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 8, 8), "timestep": torch.tensor(5)}


def unet_of_classes(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "num_class_embeds": 5}
    model = diffusers.UNet2DModel(8, **blocks, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 16, 8), "timestep": torch.tensor(5), "class_labels": torch.arange(3)}


def autoencoder(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    model = diffusers.AutoencoderKL(block_out_channels=(16,), norm_num_groups=8, sample_size=8)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 8, 8)}


def old_autoencoder(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """With the names that attention had in Stable Diffusion 1."""
    model, call = autoencoder(diffusers, folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {re.sub("to_q|to_k|to_v|to_out.0", lambda m: old[m[0]], n): t for n, t in model.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return model, call


def control(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "block_out_channels": (16, 32)}
    sizes = {"layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 4, "cross_attention_dim": 32}
    model = diffusers.ControlNetModel(**blocks, **sizes, conditioning_embedding_out_channels=(8, 16))
    for parameter in model.controlnet_down_blocks.parameters():  # zeros before they are trained
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    call = {"sample": torch.randn(3, 4, 16, 24), "controlnet_cond": torch.rand(3, 3, 32, 48)}
    return model, {
        **call,
        "timestep": torch.tensor(5),
        "encoder_hidden_states": torch.randn(3, 9, 32),
        "conditioning_scale": torch.tensor(0.7),
    }


def tiny_autoencoder(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "upsampling_scaling_factor": 2}
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    model = diffusers.AutoencoderTiny(**blocks, **widths)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 64, 64)}


def quantizing_autoencoder(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = diffusers.VQModel(**blocks, block_out_channels=(8, 16), norm_num_groups=8, num_vq_embeddings=12)
    model.save_pretrained(folder)
    return model, {"sample": torch.randn(3, 3, 32, 32)}


def of_captions(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    """PixArt, which is told the size of the picture that is made."""
    sizes = {"num_attention_heads": 3, "attention_head_dim": 16, "num_layers": 2, "cross_attention_dim": 48}
    model = diffusers.PixArtTransformer2DModel(
        **sizes, sample_size=8, caption_channels=24, norm_num_groups=8, use_additional_conditions=True
    )
    model.save_pretrained(folder)
    call = {"hidden_states": torch.randn(3, 4, 8, 8), "encoder_hidden_states": torch.randn(3, 9, 24)}
    call["encoder_attention_mask"] = (torch.arange(9) < torch.tensor([[9], [4], [7]])).long()
    size = {"resolution": torch.full((3, 2), 512.0), "aspect_ratio": torch.full((3, 1), 2.0)}
    return model, {**call, "timestep": torch.tensor([5, 5, 6]), "added_cond_kwargs": size}


def component(name: str, call: Callable[[], dict[str, Any]], **settings: Any) -> Kind:
    """A model of diffusers whose call is in no table; `call` draws the inputs."""

    def write(diffusers: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
        model = getattr(diffusers, name)(**settings)
        model.save_pretrained(folder)
        return model, call()

    return written_by("diffusers", write)


def of_texts(*sizes: int) -> dict[str, Any]:
    """Latents of these sizes, with texts and a step."""
    rows = sizes[0]
    words = {"encoder_hidden_states": torch.randn(rows, 9, 24)}
    return {"hidden_states": torch.randn(sizes), **words, "timestep": torch.full((rows,), 5.0)}


def of_mask() -> dict[str, Any]:
    return {"encoder_attention_mask": (torch.arange(9) < torch.tensor([[9], [4], [7]])).long()}


SMALL: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2}
SINGLE: dict[str, Any] = {**SMALL, "num_layers": 1, "num_single_layers": 1}
HUNYUAN: dict[str, Any] = {"text_embed_dim": 24, "pooled_projection_dim": 12, "rope_axes_dim": (4, 6, 6)}
COG: dict[str, Any] = {"time_embed_dim": 16, "condition_dim": 8, "sample_size": 8, "rope_axes_dim": (8, 8)}
ZEROS, ONES = [0.0] * 4, [1.0] * 4
WAN: dict[str, Any] = {"dim_mult": [1] * 4, "num_res_blocks": 1, "latents_mean": ZEROS, "latents_std": ONES}

COMPONENTS: dict[str, Kind] = {
    "diffusers, `LTXVideoTransformer3DModel`": component(
        "LTXVideoTransformer3DModel",
        lambda: {**of_texts(3, 64, 8), **of_mask(), "num_frames": 2, "height": 4, "width": 8},
        **{**SMALL, "in_channels": 8, "out_channels": 8, "cross_attention_dim": 32, "caption_channels": 24},
    ),
    "diffusers, `HunyuanVideoTransformer3DModel`": component(
        "HunyuanVideoTransformer3DModel",
        lambda: {
            **of_texts(3, 4, 3, 8, 12),
            **of_mask(),
            "pooled_projections": torch.randn(3, 12),
            "guidance": torch.full((3,), 6.0),
        },
        **{**SINGLE, **HUNYUAN, "in_channels": 4, "out_channels": 4, "num_refiner_layers": 1, "guidance_embeds": True},
    ),
    "diffusers, `Flux2Transformer2DModel`": component(
        "Flux2Transformer2DModel",
        lambda: {
            **of_texts(3, 20, 8),
            "img_ids": torch.rand(20, 4),
            "txt_ids": torch.zeros(9, 4),
            "guidance": torch.full((3,), 3.0),
        },
        **{**SINGLE, "in_channels": 8, "joint_attention_dim": 24, "axes_dims_rope": (4, 4, 4, 4)},
    ),
    "diffusers, `CogView4Transformer2DModel`": component(
        "CogView4Transformer2DModel",
        lambda: {
            **of_texts(3, 4, 8, 12),
            **{name: torch.full((3, 2), 64.0) for name in ("original_size", "target_size", "crop_coords")},
        },
        **{**SMALL, **COG, "in_channels": 4, "out_channels": 4, "text_embed_dim": 24},
    ),
    "diffusers, `AutoencoderKLWan`": component(
        "AutoencoderKLWan", lambda: {"sample": torch.randn(2, 3, 5, 64, 64)}, base_dim=8, z_dim=4, **WAN
    ),
    "diffusers, `AutoencoderKLTemporalDecoder`": component(
        "AutoencoderKLTemporalDecoder", lambda: {"sample": torch.randn(3, 3, 16, 16)}, block_out_channels=(32,)
    ),
}

Change = Callable[[Path], None]


def of_timm(name: str, change: Change = lambda _: None, **arguments: Any) -> Kind:
    """A model of timm as it saves one; `change` changes the folder, of which timm then loads the model."""

    def write(timm: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
        model = timm.create_model(name, **arguments)
        saved = {key: value for key, value in arguments.items() if key != "num_classes"}
        timm.models.save_for_hf(model, str(folder), safe_serialization=True, model_args=saved)
        change(folder)
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return loaded, {"x": torch.randn(3, *loaded.pretrained_cfg["input_size"])}

    return written_by("timm", write, config={"architecture": name, "num_classes": 10, "pretrained_cfg": {}})


def configured_as(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    def write(folder: Path) -> None:
        config = change(json.loads((folder / "config.json").read_text()))
        (folder / "config.json").write_text(json.dumps(config))

    return write


def named_by_meta(folder: Path) -> None:
    """The names of ConvNeXt's makers."""
    renamed = {
        r"stem\.(\d)": r"downsample_layers.0.\1",
        r"stages\.(\d+)\.blocks\.(\d+)": r"stages.\1.\2",
        r"stages\.(\d+)\.downsample\.(\d+)": r"downsample_layers.\1.\2",
        "conv_dw": "dwconv",
        r"mlp\.fc": "pwconv",
        r"head\.fc": "head",
        r"head\.norm": "norm",
    }
    tensors = dict[str, torch.Tensor]()
    for name, tensor in load_file(folder / "model.safetensors").items():
        for new, old in renamed.items():
            name = re.sub(new, old, name)
        tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors")


def of_open_clip(**settings: Any) -> Kind:
    """Encoders of open_clip; `settings` are added to those of a small CLIP."""
    config = {**CLIP, "model_cfg": {**CLIP["model_cfg"], **settings}}

    def write(open_clip: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        tensors = {name: t.contiguous().clone() for name, t in model.state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")
        size = config["model_cfg"]["vision_cfg"]["image_size"]
        return model, {"image": torch.randn(3, 3, size, size), "text": torch.randint(1, 99, (3, 16))}

    return written_by("open_clip", write, open_clip_config=config)


VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
WORDS = {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2}
CLIP: dict[str, Any] = {"model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": WORDS}, "preprocess_cfg": {}}

LIBRARIES: dict[str, Kind] = {
    "diffusers, `UNet2DModel`": written_by("diffusers", unet),
    "diffusers, `UNet2DModel` of classes": written_by("diffusers", unet_of_classes),
    "diffusers, `AutoencoderKL`": written_by("diffusers", autoencoder),
    "diffusers, `AutoencoderKL`, attention under old names": written_by("diffusers", old_autoencoder),
    "diffusers, `ControlNetModel`": written_by("diffusers", control),
    "diffusers, `AutoencoderTiny`": written_by("diffusers", tiny_autoencoder),
    "diffusers, `VQModel`": written_by("diffusers", quantizing_autoencoder),
    "diffusers, `PixArtTransformer2DModel`": written_by("diffusers", of_captions),
    **COMPONENTS,
    "timm": of_timm("resnet10t", num_classes=10),
    "timm, ViT, as features": of_timm("test_vit", num_classes=0),
    "timm, ViT, of larger images in `model_args`": of_timm("test_vit", img_size=192),
    "timm, ViT, of weights for smaller images": of_timm(
        "test_vit", configured_as(lambda config: {**config, "model_args": {"img_size": 192}})
    ),
    "timm, Swin": of_timm("swin_tiny_patch4_window7_224", img_size=56, embed_dim=16, depths=(1, 2), num_heads=(2, 2)),
    "timm, EfficientNet, of one channel": of_timm("test_efficientnet", in_chans=1),
    "timm, MLP-Mixer": of_timm("mixer_s32_224", img_size=64),
    "timm, ConvNeXt, settings in one table": of_timm(
        "test_convnext",
        configured_as(lambda config: {"architecture": config["architecture"], **config["pretrained_cfg"]}),
    ),
    "timm, ConvNeXt, names of its makers": of_timm("test_convnext", named_by_meta),
    "timm, ConvNeXt, `features_only`": of_timm(
        "test_convnext", configured_as(lambda config: {**config, "model_args": {"features_only": True}})
    ),
    "open_clip": of_open_clip(),
    "open_clip, SigLIP": of_open_clip(
        init_logit_bias=-10, text_cfg={**WORDS, "no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    ),
    "open_clip, ConvNeXt of timm": of_open_clip(
        vision_cfg={"image_size": 64, "timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    ),
    "open_clip, CoCa": of_open_clip(
        vision_cfg={**VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        text_cfg={**WORDS, "embed_cls": True, "output_tokens": True},
        multimodal_cfg=WORDS,
        custom_text=True,
    ),
}
