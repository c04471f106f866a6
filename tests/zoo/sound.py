"""Models of sound: waves and spectrograms in, text, classes, codes or sound out."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

from tests.zoo.entry import BODY, TOKENS, Entry, Inputs, from_config, ids

WAVE = {k: v for k, v in BODY.items() if k != "max_position_embeddings"} | {
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
    "vocab_size": 32,
    "apply_spec_augment": False,
}
SPOKEN = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "use_cache": False,
}

Base = t.AutoModel
Ctc = t.AutoModelForCTC


def _wave(batch: int, seq: int) -> Inputs:
    return {"input_values": torch.randn(batch, 40 * seq)}


def _waves(kind: str, head: type[Any] = Ctc, **options: Any) -> Entry:
    dynamic = {"input_values": {0: "batch", 1: "samples"}}
    return Entry(from_config(head, kind, **{**WAVE, **options}), _wave, dynamic)


def _spectrum(batch: int, seq: int) -> Inputs:
    return {"input_features": torch.randn(batch, 16, 64), "decoder_input_ids": ids(batch, seq)}


def _frames(batch: int, seq: int) -> Inputs:
    return {
        "input_features": torch.randn(batch, 4 * seq, 16),
        "attention_mask": torch.ones(batch, 4 * seq, dtype=torch.int64),
    }


def _dictation(batch: int, seq: int) -> Inputs:
    return _frames(batch, seq) | {"decoder_input_ids": ids(batch, seq)}


def _heard(batch: int, seq: int) -> Inputs:
    return _wave(batch, seq) | {"decoder_input_ids": ids(batch, seq)}


def _mono(batch: int, seq: int) -> Inputs:
    return {"input_values": torch.randn(batch, 1, 40 * seq)}


def _codes(batch: int, seq: int) -> Inputs:
    return {"input_ids": ids(batch, seq), "decoder_input_ids": torch.randint(0, 32, (2 * batch, seq))}


FRAMES = {"input_features": {0: "batch", 1: "frames"}, "attention_mask": {0: "batch", 1: "frames"}}
TARGET = {"decoder_input_ids": {0: "batch", 1: "target"}}

SOUND: dict[str, Entry] = {
    "audio_spectrogram_transformer": Entry(
        from_config(
            t.AutoModelForAudioClassification,
            "audio-spectrogram-transformer",
            **{k: v for k, v in BODY.items() if k != "max_position_embeddings"},
            patch_size=8,
            frequency_stride=8,
            time_stride=8,
            max_length=32,
            num_mel_bins=16,
        ),
        lambda batch, _: {"input_values": torch.randn(batch, 32, 16)},
        {"input_values": {0: "batch"}},
    ),
    "clap_audio": Entry(
        from_config(
            t.ClapAudioModelWithProjection,
            "clap_audio_model",
            spec_size=32,
            patch_size=4,
            patch_stride=[4, 4],
            num_mel_bins=8,
            window_size=4,
            patch_embeds_hidden_size=16,
            depths=[1, 2],
            num_attention_heads=[2, 4],
            num_hidden_layers=2,
            hidden_size=32,
            projection_dim=16,
        ),
        lambda batch, _: {"input_features": torch.randn(batch, 1, 128, 8)},
        {"input_features": {0: "batch"}},
    ),
    "dac": Entry(
        from_config(
            Base,
            "dac",
            encoder_hidden_size=8,
            downsampling_ratios=[2, 4],
            upsampling_ratios=[4, 2],
            decoder_hidden_size=32,
            n_codebooks=2,
            codebook_size=32,
            codebook_dim=4,
        ),
        _mono,
        {"input_values": {0: "batch", 2: "samples"}},
    ),
    "data2vec_audio": _waves("data2vec-audio", conv_pos_kernel_size=3, num_conv_pos_embeddings=2),
    "encodec": Entry(
        from_config(
            Base,
            "encodec",
            hidden_size=32,
            num_filters=4,
            upsampling_ratios=[4, 2],
            num_lstm_layers=1,
            codebook_size=32,
            codebook_dim=32,
            target_bandwidths=[24.0],
        ),
        _mono,
        {"input_values": {0: "batch", 2: "samples"}},
    ),
    "hubert": _waves("hubert"),
    "mimi": Entry(
        from_config(
            Base,
            "mimi",
            hidden_size=32,
            num_filters=4,
            upsampling_ratios=[4, 2],
            codebook_size=32,
            codebook_dim=16,
            num_quantizers=2,
            vector_quantization_hidden_dimension=16,
            upsample_groups=32,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=8,
        ),
        _mono,
        {"input_values": {0: "batch", 2: "samples"}},
    ),
    "moonshine": Entry(
        from_config(
            t.AutoModelForSpeechSeq2Seq,
            "moonshine",
            **TOKENS,
            hidden_size=64,
            intermediate_size=128,
            encoder_num_hidden_layers=2,
            decoder_num_hidden_layers=2,
            encoder_num_attention_heads=4,
            decoder_num_attention_heads=4,
            encoder_num_key_value_heads=4,
            decoder_num_key_value_heads=4,
            max_position_embeddings=64,
            decoder_start_token_id=1,
            use_cache=False,
        ),
        lambda batch, seq: {"input_values": torch.randn(batch, 200 * seq), "decoder_input_ids": ids(batch, seq)},
        {"input_values": {0: "batch", 1: "samples"}, **TARGET},
    ),
    "musicgen_decoder": Entry(
        from_config(
            t.MusicgenForCausalLM,
            "musicgen_decoder",
            vocab_size=32,
            max_position_embeddings=64,
            num_hidden_layers=4,
            ffn_dim=128,
            num_attention_heads=4,
            hidden_size=64,
            num_codebooks=2,
            pad_token_id=32,
            bos_token_id=32,
            use_cache=False,
        ),
        lambda batch, seq: {"input_ids": torch.randint(0, 32, (2 * batch, seq))},
        {"input_ids": {0: "rows", 1: "seq"}},
    ),
    "sew": _waves("sew", squeeze_factor=2),
    "sew_d": _waves("sew-d", squeeze_factor=2, max_position_embeddings=64, position_buckets=8),
    "speech_to_text": Entry(
        from_config(
            t.AutoModelForSpeechSeq2Seq,
            "speech_to_text",
            **TOKENS,
            **SPOKEN,
            conv_channels=32,
            input_feat_per_channel=16,
            max_source_positions=256,
            max_target_positions=64,
            decoder_start_token_id=2,
        ),
        _dictation,
        {**FRAMES, **TARGET},
    ),
    "speecht5": Entry(
        from_config(
            t.AutoModelForSpeechSeq2Seq,
            "speecht5",
            **{k: v for k, v in {**WAVE, **TOKENS, **SPOKEN}.items() if k not in ("d_model", "intermediate_size")},
            max_speech_positions=512,
            max_text_positions=64,
            encoder_max_relative_position=16,
            decoder_start_token_id=2,
        ),
        _heard,
        {"input_values": {0: "batch", 1: "samples"}, **TARGET},
    ),
    "unispeech": _waves("unispeech", num_ctc_classes=32),
    "unispeech_sat": _waves("unispeech-sat"),
    "wav2vec2": _waves("wav2vec2"),
    "wav2vec2_bert": Entry(
        from_config(
            Ctc,
            "wav2vec2-bert",
            **{k: v for k, v in WAVE.items() if not k.startswith("conv")},
            feature_projection_input_dim=16,
            conv_depthwise_kernel_size=3,
        ),
        _frames,
        FRAMES,
    ),
    "wav2vec2_conformer": _waves("wav2vec2-conformer", conv_depthwise_kernel_size=3),
    "wavlm": _waves("wavlm", num_buckets=16, max_bucket_distance=32),
    "whisper": Entry(
        from_config(
            t.AutoModelForSpeechSeq2Seq,
            "whisper",
            **{**TOKENS, **SPOKEN},
            num_mel_bins=16,
            max_source_positions=32,
            max_target_positions=64,
            decoder_start_token_id=1,
        ),
        _spectrum,
        {"input_features": {0: "batch"}, **TARGET},
    ),
}
