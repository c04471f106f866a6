"""The arguments of diffusers' models, as its pipelines pass them, in sizes of their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ir.sources.libraries.diffusers_videos import VIDEO_CALLS
from ir.sources.libraries.known_folder import LibraryCall

_BATCH, _TOKENS, _PATCHES = 2, 77, 64
_STEP = 10  # of a schedule


def _picture(config: Any) -> Tensor:
    """Latents, or pixels: `[batch, channels, height, width]`."""
    size = config.get("sample_size") or 64
    return torch.randn(_BATCH, config.in_channels, *(size if isinstance(size, (list, tuple)) else (size, size)))


def _words(width: Any) -> Tensor:
    """The states of a text encoder: `[batch, tokens, width]`."""
    return torch.randn(_BATCH, _TOKENS, width[0] if isinstance(width, (list, tuple)) else width)


def _called(inputs: Mapping[str, Any], **tokens: str) -> LibraryCall:
    """A call whose rows may be any number, and its pictures of any size.

    `tokens` are the names of the sizes after rows that may change, too.  Ids have no rows: their first size is that of
    tokens.
    """
    sizes: dict[str, dict[int, str]] = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.dim():
            axes = ("batch", tokens.get(name)) if not name.endswith("_ids") else (tokens.get(name),)
            axes = ("batch", None, "height", "width") if value.dim() == 4 else axes
            sizes[name] = {axis: size for axis, size in enumerate(axes) if size is not None}
    return LibraryCall(inputs, {name: size for name, size in sizes.items() if size})


def _unet(config: Any) -> LibraryCall:
    return _called({"sample": _picture(config), "timestep": torch.tensor(_STEP), **_conditions(config)})


def _conditions(config: Any) -> Mapping[str, Tensor]:
    """The further inputs of a UNet: a class of each row, and the guidance that it was distilled with."""
    given = dict[str, Tensor]()
    if (count := config.get("num_class_embeds")) and config.get("class_embed_type") is None:
        given["class_labels"] = torch.randint(count, (_BATCH,))
    if width := config.get("time_cond_proj_dim"):
        given["timestep_cond"] = torch.randn(_BATCH, width)
    return given


def _conditioned_unet(config: Any) -> LibraryCall:
    inputs = {"sample": _picture(config), "timestep": torch.tensor(_STEP), **_conditions(config)}
    inputs["encoder_hidden_states"] = _words(config.cross_attention_dim)
    call = _called(inputs, encoder_hidden_states="tokens")
    if config.get("addition_embed_type") != "text_time":
        return call
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    added = {"text_embeds": torch.randn(_BATCH, width), "time_ids": torch.ones(_BATCH, 6)}
    shapes = {"added_cond_kwargs": {name: {0: "batch"} for name in added}}
    return LibraryCall({**call.inputs, "added_cond_kwargs": added}, {**call.dynamic, **shapes})  # type: ignore[dict-item]


def _control(config: Any) -> LibraryCall:
    """The call of a ControlNet: that of a UNet, with a picture in pixels, which its layers halve."""
    call = _conditioned_unet(config)
    size = 2 ** (len(config.conditioning_embedding_out_channels or (0, 0, 0, 0)) - 1)
    rows, _, height, width = call.inputs["sample"].shape
    picture = torch.rand(rows, config.conditioning_channels, size * height, size * width)
    inputs = {**call.inputs, "controlnet_cond": picture, "guess_mode": False}
    inputs["conditioning_scale"] = torch.tensor(1.0)
    sizes: dict[str, Any] = {"controlnet_cond": {0: "batch", 2: "picture_height", 3: "picture_width"}}
    return LibraryCall(inputs, dict(call.dynamic or {}) | sizes)


def _autoencoder(config: Any) -> LibraryCall:
    return _called({"sample": _picture(config)})


def _stable_diffusion_3(config: Any) -> LibraryCall:
    return _called(
        {
            "hidden_states": _picture(config),
            "encoder_hidden_states": _words(config.joint_attention_dim),
            "pooled_projections": torch.randn(_BATCH, config.pooled_projection_dim),
            "timestep": torch.full((_BATCH,), float(_STEP)),
        },
        encoder_hidden_states="tokens",
    )


def _flux(config: Any) -> LibraryCall:
    inputs = {
        "hidden_states": torch.randn(_BATCH, _PATCHES, config.in_channels),
        "encoder_hidden_states": _words(config.joint_attention_dim),
        "pooled_projections": torch.randn(_BATCH, config.pooled_projection_dim),
        "timestep": torch.full((_BATCH,), 0.5),
        "img_ids": torch.zeros(_PATCHES, 3),
        "txt_ids": torch.zeros(_TOKENS, 3),
    }
    inputs |= {"guidance": torch.full((_BATCH,), 3.5)} if config.guidance_embeds else {}
    tokens = {"encoder_hidden_states": "tokens", "txt_ids": "tokens"}
    return _called(inputs, **tokens, hidden_states="patches", img_ids="patches")


def _of_captions(config: Any) -> LibraryCall:
    """The call of PixArt and Sana: words with a mask, and the picture's sizes where PixArt is trained with them."""
    inputs = {
        "hidden_states": _picture(config),
        "encoder_hidden_states": _words(config.caption_channels),
        "encoder_attention_mask": torch.ones(_BATCH, _TOKENS, dtype=torch.int64),
        "timestep": torch.full((_BATCH,), _STEP),
    }
    if config.get("guidance_embeds"):
        inputs["guidance"] = torch.full((_BATCH,), 4.5)
    call = _called(inputs, encoder_hidden_states="tokens", encoder_attention_mask="tokens")
    if "use_additional_conditions" not in config:
        return call
    named = config.use_additional_conditions
    larger = config.sample_size == 128 if named is None else named
    sizes = {"resolution": torch.full((_BATCH, 2), 1024.0), "aspect_ratio": torch.ones(_BATCH, 1)}
    added = sizes if larger else dict.fromkeys(sizes)
    shapes = {"added_cond_kwargs": {name: {0: "batch"} for name in sizes}} if larger else {}
    return LibraryCall({**call.inputs, "added_cond_kwargs": added}, {**call.dynamic, **shapes})  # type: ignore[dict-item]


def _aura_flow(config: Any) -> LibraryCall:
    inputs = {
        "hidden_states": _picture(config),
        "encoder_hidden_states": _words(config.joint_attention_dim),
        "timestep": torch.full((_BATCH,), 0.5),
    }
    return _called(inputs, encoder_hidden_states="tokens")


def _classes(config: Any) -> LibraryCall:
    labels = torch.randint(config.num_embeds_ada_norm, (_BATCH,))
    return _called(
        {"hidden_states": _picture(config), "timestep": torch.full((_BATCH,), _STEP), "class_labels": labels}
    )


def _autoencoder_methods(config: Any, dtype: torch.dtype) -> Mapping[str, LibraryCall]:
    """The calls of pipelines: pixels are encoded, latents are decoded."""
    pixels = _picture(config)
    side = 2 ** (len(config.block_out_channels) - 1)
    latents = torch.randn(_BATCH, config.latent_channels, *(size // side for size in pixels.shape[2:]))
    return {"decode": _called({"z": latents.to(dtype)}), "encode": _called({"x": pixels.to(dtype)})}


def _tiny_methods(config: Any, dtype: torch.dtype) -> Mapping[str, LibraryCall]:
    pixels = _picture(config)
    side = config.upsampling_scaling_factor
    latents = torch.randn(_BATCH, config.latent_channels, *(size // side for size in pixels.shape[2:]))
    return {"decode": _called({"x": latents.to(dtype)}), "encode": _called({"x": pixels.to(dtype)})}


def _quantized_methods(config: Any, dtype: torch.dtype) -> Mapping[str, LibraryCall]:
    """The calls of pipelines, whose latents need no vectors of the codebook."""
    pixels = _picture(config)
    side = 2 ** (len(config.block_out_channels) - 1)
    latents = torch.randn(_BATCH, config.latent_channels, *(size // side for size in pixels.shape[2:])).to(dtype)
    decode = LibraryCall({"h": latents, "force_not_quantize": True}, _called({"h": latents}).dynamic)
    return {"decode": decode, "encode": _called({"x": pixels.to(dtype)})}


CALLS: Mapping[str, Callable[[Any], LibraryCall]] = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _conditioned_unet,
    "ControlNetModel": _control,
    "AutoencoderKL": _autoencoder,
    "AutoencoderTiny": _autoencoder,
    "AutoencoderDC": _autoencoder,
    "VQModel": _autoencoder,
    "PixArtTransformer2DModel": _of_captions,
    "SanaTransformer2DModel": _of_captions,
    "AuraFlowTransformer2DModel": _aura_flow,
    "SD3Transformer2DModel": _stable_diffusion_3,
    "FluxTransformer2DModel": _flux,
    "DiTTransformer2DModel": _classes,
    **VIDEO_CALLS,
}
"""The call of a model by its class."""

METHODS: Mapping[str, Callable[[Any, torch.dtype], Mapping[str, LibraryCall]]] = {
    "AutoencoderKL": _autoencoder_methods,
    "AutoencoderTiny": _tiny_methods,
    "VQModel": _quantized_methods,
}
"""The calls of pipelines, by their methods, of models of which they do not call `forward`."""

TEXT_ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "CLIPTextModel": {"output_hidden_states": True},
    "CLIPTextModelWithProjection": {"output_hidden_states": True},
    "T5EncoderModel": {},
    "UMT5EncoderModel": {},
}
"""The classes of transformers that pipelines call without a mask, with the arguments beside the ids."""

MASKING = ("PixArtAlphaPipeline", "PixArtSigmaPipeline", "AuraFlowPipeline", "WanPipeline", "WanImageToVideoPipeline")
"""The pipelines that call them with a mask."""
