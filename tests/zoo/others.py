"""Diffusion, and forecasts of series."""

from __future__ import annotations

from typing import Any

import diffusers as d
import torch
import transformers as t

from tests.zoo.entry import Entry, Inputs, from_config

BLOCKS = {
    "block_out_channels": (16, 32),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}


def _noisy(channels: int, *, words: bool) -> Any:
    def inputs(batch: int, seq: int) -> Inputs:
        side = 8 * (1 + seq % 3)
        given = {"sample": torch.randn(batch, channels, side, side + 8), "timestep": torch.randint(0, 1000, (batch,))}
        return given | ({"encoder_hidden_states": torch.randn(batch, seq, 32)} if words else {})

    return inputs


def _patches(batch: int, seq: int) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, 4, 16, 16),
        "timestep": torch.randint(0, 1000, (batch,)),
        "class_labels": torch.randint(0, 10, (batch,)),
    }


def _sd3(batch: int, seq: int) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, 4, 16, 16),
        "encoder_hidden_states": torch.randn(batch, seq, 32),
        "pooled_projections": torch.randn(batch, 16),
        "timestep": torch.randint(0, 1000, (batch,)),
    }


def _flux(batch: int, seq: int) -> Inputs:
    return {
        "hidden_states": torch.randn(batch, 4 * seq, 4),
        "encoder_hidden_states": torch.randn(batch, seq, 32),
        "pooled_projections": torch.randn(batch, 16),
        "timestep": torch.rand(batch),
        "img_ids": torch.randint(0, 8, (4 * seq, 3)).float(),
        "txt_ids": torch.zeros(seq, 3),
    }


def _prompted(batch: int, seq: int) -> Inputs:
    mask = torch.ones(batch, seq)
    mask[0, seq // 2 :] = 0
    return {
        "hidden_states": torch.randn(batch, 4, 16, 16),
        "encoder_hidden_states": torch.randn(batch, seq, 32),
        "timestep": torch.randint(0, 1000, (batch,)),
        "encoder_attention_mask": mask,
    }


AREA = {"sample": {0: "batch", 2: "height", 3: "width"}}
PROMPT = {0: "batch", 1: "seq"}


def _series(batch: int, _: int) -> Inputs:
    return {"past_values": torch.randn(batch, 32, 2)}


def _forecast(batch: int, _: int) -> Inputs:
    """What is to come is given, as in training; the last values are those that it is forecast from."""
    return {
        "past_values": torch.randn(batch, 23),
        "past_time_features": torch.randn(batch, 23, 2),
        "past_observed_mask": torch.ones(batch, 23),
        "future_values": torch.randn(batch, 8),
        "future_time_features": torch.randn(batch, 8, 2),
    }


def _forecaster(kind: str, head: type[Any], **options: Any) -> Entry:
    make = from_config(
        head,
        kind,
        prediction_length=8,
        context_length=16,
        lags_sequence=[1, 2, 7],
        num_time_features=2,
        d_model=32,
        **options,
    )
    return Entry(make, _forecast, {name: {0: "batch"} for name in _forecast(1, 1)})


OTHERS: dict[str, Entry] = {
    "autoencoder_kl": Entry(
        lambda: d.AutoencoderKL(
            **BLOCKS,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        ),
        lambda batch, seq: {"sample": torch.randn(batch, 3, 16 * (1 + seq % 3), 32)},
        AREA,
    ),
    "autoformer": _forecaster("autoformer", t.AutoformerModel, moving_average=3, label_length=4),
    "dit": Entry(
        lambda: d.DiTTransformer2DModel(
            num_attention_heads=4, attention_head_dim=16, in_channels=4, num_layers=4, sample_size=16, norm_num_groups=4
        ),
        _patches,
        {name: {0: "batch"} for name in _patches(1, 1)},
    ),
    "flux": Entry(
        lambda: d.FluxTransformer2DModel(
            in_channels=4,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
        _flux,
        {
            "hidden_states": {0: "batch", 1: "patches"},
            "encoder_hidden_states": PROMPT,
            "pooled_projections": {0: "batch"},
            "timestep": {0: "batch"},
            "img_ids": {0: "patches"},
            "txt_ids": {0: "seq"},
        },
    ),
    "informer": _forecaster("informer", t.InformerModel, attention_type="full"),
    "patchtsmixer": Entry(
        from_config(
            t.PatchTSMixerForPrediction, "patchtsmixer", num_input_channels=2, d_model=32, num_layers=4, loss="mse"
        ),
        _series,
        {"past_values": {0: "batch"}},
    ),
    "patchtst": Entry(
        from_config(
            t.PatchTSTForPrediction,
            "patchtst",
            num_input_channels=2,
            patch_length=8,
            patch_stride=8,
            d_model=64,
            ffn_dim=128,
            loss="mse",
        ),
        _series,
        {"past_values": {0: "batch"}},
    ),
    "pixart": Entry(
        lambda: d.PixArtTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=16,
            in_channels=4,
            num_layers=4,
            sample_size=16,
            cross_attention_dim=64,
            caption_channels=32,
            norm_num_groups=4,
            use_additional_conditions=False,
        ),
        _prompted,
        {
            "hidden_states": {0: "batch"},
            "encoder_hidden_states": PROMPT,
            "timestep": {0: "batch"},
            "encoder_attention_mask": PROMPT,
        },
    ),
    "sd3": Entry(
        lambda: d.SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=64,
            pooled_projection_dim=16,
            out_channels=4,
            pos_embed_max_size=16,
        ),
        _sd3,
        {name: PROMPT if name == "encoder_hidden_states" else {0: "batch"} for name in _sd3(1, 1)},
    ),
    "time_series_transformer": _forecaster("time_series_transformer", t.TimeSeriesTransformerModel),
    "unet2d": Entry(
        lambda: d.UNet2DModel(
            **BLOCKS,
            in_channels=3,
            out_channels=3,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
        ),
        _noisy(3, words=False),
        {**AREA, "timestep": {0: "batch"}},
    ),
    "unet2d_condition": Entry(
        lambda: d.UNet2DConditionModel(
            **BLOCKS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
        ),
        _noisy(4, words=True),
        {**AREA, "timestep": {0: "batch"}, "encoder_hidden_states": PROMPT},
    ),
}
