"""The arguments of diffusers' models of videos, as its pipelines pass them: latents `[batch, channels, frames, …]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ir.sources.libraries.known_folder import LibraryCall

_BATCH = 2
_STEP = 10  # of a schedule
_FRAMES, _HEIGHT, _WIDTH = 5, 60, 104  # latents of 17 frames of 480 x 832, where the configuration has no sizes
_WORDS = 512  # to which pipelines of Wan fill texts up

_VIDEO = {0: "batch", 2: "frames", 3: "height", 4: "width"}
_TEXT = {0: "batch", 1: "tokens"}


def _wan(config: Any) -> LibraryCall:
    longest = config.rope_max_seq_len * min(config.patch_size)
    sizes = (min(size, longest) for size in (_FRAMES, _HEIGHT, _WIDTH))
    inputs = {
        "hidden_states": torch.randn(_BATCH, config.in_channels, *sizes),
        "timestep": torch.full((_BATCH,), _STEP),
        "encoder_hidden_states": torch.randn(_BATCH, _WORDS, config.text_dim),
    }
    dynamic = {"hidden_states": _VIDEO, "timestep": {0: "batch"}, "encoder_hidden_states": _TEXT}
    if (width := config.get("image_dim")) is None:
        return LibraryCall(inputs, dynamic)
    inputs["encoder_hidden_states_image"] = torch.randn(_BATCH, 257, width)  # patches and one more, of CLIP
    return LibraryCall(inputs, {**dynamic, "encoder_hidden_states_image": {0: "batch"}})


def _cog(config: Any) -> LibraryCall:
    """CogVideoX, which has the frames before the channels, and a rotation for each patch or positions of its own."""
    patch, steps = config.patch_size, config.get("patch_size_t") or 1
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    frames += -frames % steps
    size = config.sample_height, config.sample_width
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(_BATCH, frames, config.in_channels, *size),
        "encoder_hidden_states": torch.randn(_BATCH, config.max_text_seq_length, config.text_embed_dim),
        "timestep": torch.full((_BATCH,), _STEP),
    }
    dynamic: dict[str, Any] = {name: {0: "batch"} for name in inputs}
    if config.use_rotary_positional_embeddings:
        patches = frames // steps * (size[0] // patch) * (size[1] // patch)
        angles = torch.rand(patches, config.attention_head_dim)
        inputs["image_rotary_emb"] = (angles.cos(), angles.sin())
    return LibraryCall(inputs, dynamic)


VIDEO_CALLS: Mapping[str, Callable[[Any], LibraryCall]] = {
    "WanTransformer3DModel": _wan,
    "CogVideoXTransformer3DModel": _cog,
}
"""The call of a model by its class."""
