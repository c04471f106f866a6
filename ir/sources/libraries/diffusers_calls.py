"""The arguments of diffusers' models, as its pipelines pass them, in sizes of their configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

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
    """A call whose rows may be any number; `tokens` are the names of the sizes after rows that may change, too.

    Ids have no rows: their first size is that of tokens.
    """
    sizes: dict[str, dict[int, str]] = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.dim():
            axes = ("batch", tokens.get(name)) if not name.endswith("_ids") else (tokens.get(name),)
            sizes[name] = {axis: size for axis, size in enumerate(axes) if size is not None}
    return LibraryCall(inputs, {name: size for name, size in sizes.items() if size})


def _unet(config: Any) -> LibraryCall:
    return _called({"sample": _picture(config), "timestep": torch.tensor(_STEP)})


def _conditioned_unet(config: Any) -> LibraryCall:
    inputs = {"sample": _picture(config), "timestep": torch.tensor(_STEP)}
    inputs["encoder_hidden_states"] = _words(config.cross_attention_dim)
    call = _called(inputs, encoder_hidden_states="tokens")
    if config.get("addition_embed_type") != "text_time":
        return call
    width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    added = {"text_embeds": torch.randn(_BATCH, width), "time_ids": torch.ones(_BATCH, 6)}
    shapes = {"added_cond_kwargs": {name: {0: "batch"} for name in added}}
    return LibraryCall({**call.inputs, "added_cond_kwargs": added}, {**call.dynamic, **shapes})  # type: ignore[dict-item]


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


CALLS: Mapping[str, Callable[[Any], LibraryCall]] = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _conditioned_unet,
    "AutoencoderKL": _autoencoder,
    "SD3Transformer2DModel": _stable_diffusion_3,
    "FluxTransformer2DModel": _flux,
    "DiTTransformer2DModel": _classes,
}
"""The call of a model by its class."""

METHODS: Mapping[str, Callable[[Any, torch.dtype], Mapping[str, LibraryCall]]] = {"AutoencoderKL": _autoencoder_methods}
"""The calls of pipelines, by their methods, of models of which they do not call `forward`."""

TEXT_ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "CLIPTextModel": {"output_hidden_states": True},
    "CLIPTextModelWithProjection": {"output_hidden_states": True},
    "T5EncoderModel": {},
    "UMT5EncoderModel": {},
}
"""The classes of transformers that pipelines call without a mask, with the arguments beside the ids."""
