"""The model in a GGUF file, which is a decoder: its class, and its configuration."""

from __future__ import annotations

from typing import Any

from ir.checkpoint.formats.gguf.file import GgufFile
from ir.checkpoint.formats.gguf.settings import take_settings
from ir.errors import SourceError

_NOTE = "GGUF: weights are dequantized while stages are written; k-quants do not stay packed"


def gguf_model(file: GgufFile, transformers: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """The configuration and the class of the model in a file, with notes.

    Raises SourceError where transformers does not read files of its kind.
    """
    path = file.path
    try:
        config = _config(file, transformers)
        cls = transformers.AutoModelForCausalLM._model_mapping[type(config)]
    except Exception as e:
        why = " ".join(f"{type(e).__name__}: {e}".split()).rstrip(".")
        raise SourceError(
            f"{path} holds no decoder that transformers reads: {why}; give the checkpoint that it was made of"
        ) from e
    take_settings(config, file)
    return config, cls, (_NOTE,)


def _config(file: GgufFile, transformers: Any) -> Any:
    """The configuration that transformers makes of a file's fields, or would."""
    path = file.path
    if file.architecture == "gpt-oss":  # at whose scaling of positions transformers 5.17 fails
        said = transformers.integrations.ggml.GGUF_CONFIG_MAPPING["gpt_oss"]
        named = {name: file.setting(key) for key, name in said.items() if name and file.setting(key) is not None}
        return transformers.GptOssConfig(**named)
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    if file.architecture != "llama" or not file.setting("expert_count"):
        return config
    plain = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "architectures")}
    return transformers.MixtralConfig(**plain)  # which llama.cpp calls a Llama
