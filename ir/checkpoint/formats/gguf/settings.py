"""Settings of a model by the fields and tensors of its GGUF file, in the configuration of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, pi
from typing import Any

import torch

from ir.checkpoint.formats.gguf.file import GgufFile
from ir.errors import SourceError

OF_ROTATIONS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""The tensors that a model's rotations are made of, which are in no checkpoint of transformers."""

_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.sliding_window": ("sliding_window",),
    "attention.head_count_kv": ("num_kv_heads",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "feed_forward_length": ("n_inner", "ffn_hidden_size"),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
    "expert_weights_norm": ("norm_topk_prob",),
}
"""The settings that a field says; transformers itself reads some of them, and not of all architectures."""

_BY_TENSORS: Mapping[str, str] = {
    ".attn_q.bias": "attention_bias",
    ".ffn_up.bias": "mlp_bias",
    ".attn_q_norm.": "qk_layernorm",
}
"""The settings that there are tensors of a name, by a part of it."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_ROUNDING = 1e-4  # of factors in float32


def take_settings(config: Any, file: GgufFile) -> None:
    """Set in a configuration what a file says of the model.

    Raises SourceError for what transformers' model cannot be set to.
    """
    if not hasattr(config, "global_head_dim"):  # whose layers have heads of two sizes
        for key, attributes in _SETTINGS.items():
            value = file.setting(key)
            for attribute in attributes if value is not None and not isinstance(value, list) else ():
                if _has_own(config, attribute):
                    setattr(config, attribute, value if key != "attention.sliding_window" else value or None)
    for part, attribute in _BY_TENSORS.items():
        if hasattr(config, attribute):
            setattr(config, attribute, file.has(part))
    for name, attribute in {"token_embd.weight": "vocab_size", "position_embd.weight": "n_positions"}.items():
        if name in file.entries and hasattr(config, attribute):
            setattr(config, attribute, int(file.entries[name].shape[-1]))
    if file.architecture not in ("falcon", "bloom"):  # whose heads are the embedding, though it be there twice
        config.tie_word_embeddings = "output.weight" not in file.entries
    if hasattr(config, "query_pre_attn_scalar"):
        config.query_pre_attn_scalar = _scale_of_queries(config)
    if file.architecture == "falcon":
        _take_falcon(config, file)
    _take_rotations(config, file)


def _has_own(config: Any, attribute: str) -> bool:
    """Whether a configuration has a setting of its own, which is not computed of others."""
    return hasattr(config, attribute) and not isinstance(getattr(type(config), attribute, None), property)


def _scale_of_queries(config: Any) -> int:
    """The scale of queries of Gemma 2 and 3, which no field says: llama.cpp goes by the model's size, too."""
    largest = config.num_hidden_layers == {"gemma2": 46, "gemma3_text": 62}.get(config.model_type)  # those of 27B
    return config.hidden_size // config.num_attention_heads if largest else config.head_dim


def _take_falcon(config: Any, file: GgufFile) -> None:
    heads, groups = config.num_attention_heads, file.setting("attention.head_count_kv") or config.num_attention_heads
    config.multi_query = groups == 1
    config.new_decoder_architecture = file.has(".attn_norm_2.") or 1 < groups < heads
    config.num_ln_in_parallel_attn = 2 if file.has(".attn_norm_2.") else 1


def _take_rotations(config: Any, file: GgufFile) -> None:
    """Set how positions turn queries and keys: the base, the part of a head that is turned, and what scales it."""
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        return
    own = parameters.get("full_attention", parameters)
    if (base := file.setting("rope.freq_base")) is not None:
        own["rope_theta"] = base
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = file.setting("rope.dimension_count") or size
    if hasattr(config, "partial_rotary_factor") or "partial_rotary_factor" in own:
        own["partial_rotary_factor"] = config.partial_rotary_factor = turned / size
    elif turned != size and not hasattr(config, "rotary_dim") and not hasattr(config, "global_head_dim"):
        raise SourceError(
            f"{file.path} turns {turned} of {size} elements of each head, which {config.model_type} of transformers "
            "does not: give the checkpoint that it was made of"
        )
    own.update(_scaling(config, file, own, size))


def _scaling(config: Any, file: GgufFile, own: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """The scaling of positions.  Raises SourceError for one that is not known."""
    kind, factor = file.setting("rope.scaling.type") or "none", file.setting("rope.scaling.factor")
    reached = file.setting("rope.scaling.original_context_length")
    if (factors := file.read("rope_freqs.weight")) is not None and not torch.all(factors == 1):
        return _of_llama3(file, factors, own["rope_theta"], size)
    if (longer := file.read("rope_factors_long.weight")) is not None:
        shorter = file.read("rope_factors_short.weight")
        config.original_max_position_embeddings = reached
        both = {"long_factor": longer.tolist(), "short_factor": (longer if shorter is None else shorter).tolist()}
        return {"rope_type": "longrope", "original_max_position_embeddings": reached, **both}
    match kind:
        case "none":
            return {}
        case "linear" if factor:
            return {"rope_type": "linear", "factor": factor}
        case "yarn" if factor and not _is_changed(file, factor):
            return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": reached}
    raise SourceError(
        f"{file.path} scales positions by {kind}, with settings that transformers has no words for: give the "
        "checkpoint that it was made of"
    )


def _is_changed(file: GgufFile, factor: float) -> bool:
    """Whether a file's YaRN is not the one of its paper."""
    said = {
        name: file.setting(f"rope.scaling.{name}") for name in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor")
    }
    usual = {1.0, 0.1 * log(factor) + 1}
    slow, fast = file.setting("rope.scaling.yarn_beta_slow"), file.setting("rope.scaling.yarn_beta_fast")
    return (
        any(value is not None and min(abs(value - one) for one in usual) > _ROUNDING for value in said.values())
        or file.setting("rope.scaling.yarn_log_multiplier") not in (None, 0.0)
        or slow not in (None, 1.0)
        or fast not in (None, 32.0)
    )


def _of_llama3(file: GgufFile, factors: torch.Tensor, base: float, size: int) -> Mapping[str, Any]:
    """The scaling of Llama 3.1 and later, of which a file has what each frequency is divided by.

    Raises SourceError for factors of another.
    """
    factor = round(float(factors.max()), 4)
    length = 2 * pi * base ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    low, high, reached = _LLAMA3.values()
    smooth = ((reached / length - low) / (high - low)).clamp(0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if len(factors) != len(expected) or (factors / expected - 1).abs().max() > _ROUNDING:
        raise SourceError(
            f"{file.path} divides the frequencies of positions by factors that are not those of Llama 3.1: give the "
            "checkpoint that it was made of"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}
