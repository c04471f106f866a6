"""The model in a GGUF file, which is a decoder: its class, and its configuration."""

from __future__ import annotations

from typing import Any

from ir.checkpoint.formats.gguf.file import GgufFile
from ir.checkpoint.formats.gguf.settings import take_settings
from ir.errors import SourceError, in_one_line

_NOTE = "GGUF: weights are dequantized while stages are written; k-quants do not stay packed"


def gguf_model(file: GgufFile, transformers: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """The configuration and the class of the model in a file, with notes.

    Raises SourceError where transformers does not read files of its kind.
    """
    path = file.path
    if file.said("general.type") == "adapter":
        raise SourceError(f"{path} is an adapter in GGUF, which is not read: give the one of peft that it was made of")
    decoders = transformers.AutoModelForCausalLM._model_mapping
    try:
        config = _config(file, transformers)
        if type(config) not in decoders:
            raise ValueError(f"{file.architecture} is another kind of model")
        take_settings(config, file)
    except SourceError:
        raise
    except Exception as e:
        raise SourceError(
            f"{path} holds no decoder that transformers reads: {in_one_line(e)}; give the checkpoint that it "
            "was made of"
        ) from e
    return config, decoders[type(config)], (_NOTE,)


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
