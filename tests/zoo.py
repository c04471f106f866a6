"""Small transformers models of many architectures, made from their configurations, with inputs of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as t
from torch import nn

VOCABULARY = 128
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 2}

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Entry:
    """An architecture: how to make the model, and its inputs for a batch and a length."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    dynamic: dict[str, dict[int, str]]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()


def _ids(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, seq))


def _text(batch: int, seq: int) -> Inputs:
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[0, seq // 2 :] = 0
    return {"input_ids": _ids(batch, seq), "attention_mask": mask}


def _pair(batch: int, seq: int) -> Inputs:
    return _text(batch, seq) | {"decoder_input_ids": _ids(batch, seq + 3)}


def _image(size: int) -> Callable[[int, int], Inputs]:
    return lambda batch, _: {"pixel_values": torch.randn(batch, 3, size, size)}


def _audio(batch: int, seq: int) -> Inputs:
    return {"input_values": torch.randn(batch, 1000)}


def _both(batch: int, seq: int) -> Inputs:
    return {"input_ids": _ids(batch, 8), "pixel_values": torch.randn(batch, 3, 32, 32)}


TEXT = {name: {0: "batch", 1: "seq"} for name in ("input_ids", "attention_mask")}
PAIR = {name: {0: "batch", 1: "source"} for name in ("input_ids", "attention_mask")} | {
    "decoder_input_ids": {0: "batch", 1: "target"}
}


def _text_model(cls: Any, config: Any, **options: Any) -> Entry:
    return Entry(lambda: cls(config(**options)), _text, TEXT)


def _image_model(cls: Any, config: Any, size: int, **options: Any) -> Entry:
    return Entry(lambda: cls(config(**options)), _image(size), {"pixel_values": {0: "batch"}})


def _without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k not in names}


_VISION = _without(SMALL, "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")

MODELS: dict[str, Entry] = {
    "opt": _text_model(
        t.OPTForCausalLM,
        t.OPTConfig,
        hidden_size=64,
        ffn_dim=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        word_embed_proj_dim=64,
        max_position_embeddings=64,
        pad_token_id=0,
    ),
    "bloom": _text_model(t.BloomForCausalLM, t.BloomConfig, hidden_size=64, n_layer=4, n_head=4, vocab_size=VOCABULARY),
    "falcon": _text_model(t.FalconForCausalLM, t.FalconConfig, **_without(SMALL, "intermediate_size")),
    "gpt_neox": _text_model(t.GPTNeoXForCausalLM, t.GPTNeoXConfig, **SMALL),
    "llama": _text_model(t.LlamaForCausalLM, t.LlamaConfig, **GROUPED),
    "mistral": _text_model(t.MistralForCausalLM, t.MistralConfig, **GROUPED, sliding_window=8),
    "qwen2": _text_model(t.Qwen2ForCausalLM, t.Qwen2Config, **GROUPED),
    "qwen3": _text_model(t.Qwen3ForCausalLM, t.Qwen3Config, **GROUPED, head_dim=16),
    "gemma2": _text_model(t.Gemma2ForCausalLM, t.Gemma2Config, **GROUPED, head_dim=16),
    "phi3": _text_model(t.Phi3ForCausalLM, t.Phi3Config, **GROUPED),
    "olmo2": _text_model(t.Olmo2ForCausalLM, t.Olmo2Config, **GROUPED),
    "mixtral": _text_model(t.MixtralForCausalLM, t.MixtralConfig, **GROUPED, num_local_experts=4),
    "roberta": _text_model(t.RobertaForMaskedLM, t.RobertaConfig, **SMALL, max_position_embeddings=64),
    "albert": _text_model(t.AlbertForMaskedLM, t.AlbertConfig, **SMALL, embedding_size=32),
    "deberta_v2": _text_model(t.DebertaV2ForMaskedLM, t.DebertaV2Config, **SMALL),
    "modernbert": _text_model(t.ModernBertForMaskedLM, t.ModernBertConfig, **SMALL),
    "distilbert": _text_model(
        t.DistilBertForMaskedLM,
        t.DistilBertConfig,
        dim=64,
        hidden_dim=128,
        n_layers=4,
        n_heads=4,
        vocab_size=VOCABULARY,
    ),
    "bart": Entry(
        lambda: t.BartForConditionalGeneration(
            t.BartConfig(
                d_model=64,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=128,
                decoder_ffn_dim=128,
                vocab_size=VOCABULARY,
                max_position_embeddings=64,
            )
        ),
        _pair,
        PAIR,
    ),
    "vit": _image_model(t.ViTForImageClassification, t.ViTConfig, 32, **_VISION, image_size=32, patch_size=8),
    "swin": _image_model(
        t.SwinForImageClassification,
        t.SwinConfig,
        32,
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "convnext": _image_model(
        t.ConvNextForImageClassification, t.ConvNextConfig, 32, depths=[1, 1, 2, 1], hidden_sizes=[8, 16, 32, 64]
    ),
    "dinov2": _image_model(
        t.Dinov2ForImageClassification,
        t.Dinov2Config,
        28,
        **_without(_VISION, "intermediate_size"),
        image_size=28,
        patch_size=7,
    ),
    "segformer": _image_model(
        t.SegformerForSemanticSegmentation,
        t.SegformerConfig,
        64,
        hidden_sizes=[8, 16, 32, 64],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=32,
    ),
    "siglip": _image_model(t.SiglipVisionModel, t.SiglipVisionConfig, 32, **_VISION, image_size=32, patch_size=8),
    "clip": Entry(
        lambda: t.CLIPModel(
            t.CLIPConfig(
                text_config=SMALL, vision_config=_VISION | {"image_size": 32, "patch_size": 8}, projection_dim=32
            )
        ),
        _both,
        {"input_ids": {0: "texts"}, "pixel_values": {0: "images"}},
    ),
    "wav2vec2": Entry(
        lambda: t.Wav2Vec2Model(
            t.Wav2Vec2Config(
                **_VISION,
                conv_dim=(16, 16, 16),
                conv_stride=(5, 2, 2),
                conv_kernel=(10, 3, 3),
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=4,
                num_feat_extract_layers=3,
            )
        ),
        _audio,
        {"input_values": {0: "batch"}},
    ),
}
