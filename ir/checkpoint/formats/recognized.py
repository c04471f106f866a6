"""Folders, settings and tensors of other programs, recognized by their names: whose they are, and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

_MADE_OF = "give the folder that it was made of"
_ORBAX = "is of Orbax, which is not read: load it with orbax.checkpoint, and save its weights as .safetensors"
_SCRIPT = "convert it with the script of transformers' repository: python src/transformers/models"
FUSE = (
    "merge it into the pipeline that it is for, and save that: pipe.load_lora_weights(it), pipe.fuse_lora(), "
    "pipe.unload_lora_weights(), pipe.save_pretrained(folder)"
)

_FOLDERS: Mapping[tuple[str, ...], str] = {
    ("model-rank-*-part-*",): f"is vLLM's sharded state, whose layers are joined, and divided over ranks; {_MADE_OF}",
    ("params.json", "consolidated.*.pth"): (
        f"is of Meta's own code; {_SCRIPT}/llama/convert_llama_weights_to_hf.py --input_dir {{}} --output_dir CONVERTED"
    ),
    ("params.json", "consolidated*.safetensors"): (
        f"is of Mistral's own code; {_SCRIPT}/mistral/convert_mistral_weights_to_hf.py {{}} CONVERTED"
    ),
    ("rank*.engine",): f"is an engine of TensorRT-LLM, which holds compiled kernels; {_MADE_OF}",
    ("transformer_blocks.*", "unquantized_layers.*"): (
        f"is of nunchaku, whose SVDQuant weights are not read; {_MADE_OF}"
    ),
    ("model_config.yaml", "model_weights*"): "is of NeMo; convert it: nemo llm export path={} target=hf",
    ("context/model.yaml", "weights"): "is of NeMo; convert it: nemo llm export path={} target=hf",
    ("layer_*-model_*-model_states.pt", "*_states.pt"): (
        "has a file for each layer, as GPT-NeoX and DeepSpeed's pipelines save: convert it with "
        "tools/ckpts/convert_neox_to_hf.py of GPT-NeoX, or join the files with zero_to_fp32.py"
    ),
    ("_CHECKPOINT_METADATA",): _ORBAX,
    ("manifest.ocdbt",): _ORBAX,
    ("*/manifest.ocdbt",): _ORBAX,
    ("model.bin", "*vocabulary.*"): f"is of CTranslate2, which is not read; {_MADE_OF}",
    ("*.mlpackage",): f"is of Core ML, which is not read; {_MADE_OF}",
    ("Data/com.apple.CoreML",): f"is of Core ML, which is not read; {_MADE_OF}",
    ("*-cache.json", "params_shard_*.bin"): f"is of MLC, which is not read; {_MADE_OF}",
    ("mlc-chat-config.json",): f"is of MLC, which is not read; {_MADE_OF}",
    ("genai_config.json",): f"is of ONNX Runtime, which is not read; {_MADE_OF}",
    ("saved_model.pb",): "is a SavedModel of TensorFlow, which is not read: save its weights as .safetensors",
    ("*.ckpt.index",): "is a checkpoint of TensorFlow, which is not read: save its weights as .safetensors",
    ("*.keras",): "has a file of Keras, which is not read: save its weights as .safetensors",
    ("*.llamafile",): "has a llamafile, which is a program with a GGUF file in it: unzip it, and give that file",
    ("meta.json", "config.cfg"): "is a pipeline of spaCy; give a model file that makes its model as a torch module",
    ("pytorch_lora_weights.*",): (
        "is a LoRA adapter of diffusers; give the folder of the pipeline that it is for, and --adapter {}"
    ),
    ("learned_embeds*",): "is a textual inversion: load it into its pipeline, and save that with save_pretrained",
}
"""By the names of files that such a folder has, all of them: what it is, where {} stands for the folder."""

_SETTINGS: Mapping[tuple[str, ...], str] = {
    ("architecture", "mapping"): f"is of TensorRT-LLM, whose layers are joined; {_MADE_OF}",
    ("pretrained_config", "build_config"): f"is an engine of TensorRT-LLM, which holds compiled kernels; {_MADE_OF}",
    ("paddlenlp_version",): "is of PaddleNLP, whose linear layers lie across: save it with save_to_hf=True",
    ("module", "class_name"): "is of Keras, which is not read: save its weights as .safetensors",
}
"""By keys of config.json, all of them: what its folder is."""

_NAMES: Mapping[str, str] = {
    r"lora_(unet|te\d?|transformer)_.+": f"of a LoRA adapter in kohya's form; {FUSE}",
    r"(unet|text_encoder|transformer)\..+\.lora_(A|down)\.weight": f"of a LoRA adapter of diffusers; {FUSE}",
    r"model\.diffusion_model\..+": (
        "of a pipeline in one file: diffusers reads it, as StableDiffusionPipeline.from_single_file(it)"
        ".save_pretrained(folder) does; give that folder"
    ),
    r"double_blocks\.0\..+": (
        "of Flux in its makers' form: diffusers reads it, FluxTransformer2DModel.from_single_file(it)"
        ".save_pretrained(folder); give that folder"
    ),
    r"ip_adapter\..+_ip\.weight": (
        "of an IP-Adapter: give a model file that makes the model with it, as pipe.load_ip_adapter(it) does"
    ),
    r"(emb_params|<.+>)": "of a textual inversion: load it into its pipeline, and save that with save_pretrained",
    r"layers\.\d+\.attention\.wq\.weight": (
        "of Meta's or Mistral's own code, or of torchtitan: convert it with llama/convert_llama_weights_to_hf.py or "
        "mistral/convert_mistral_weights_to_hf.py of transformers' repository (in src/transformers/models), or with "
        "scripts/checkpoint_conversion/convert_to_hf.py of torchtitan's"
    ),
    r"layers\.\d+\.attn\.output_proj\.weight": (
        "of torchtune: save it with FullModelHFCheckpointer, or rename them by tune_to_hf of "
        "torchtune.models.convert_weights"
    ),
    r"transformer\.h\.\d+\.attn\.(qkv|attn)\.weight": (
        "of LitGPT: convert it: litgpt convert_from_litgpt FOLDER CONVERTED, which writes transformers' names"
    ),
    r"(.+\.)?(decoder|encoder)\.layers\.(\d+\.)?self_attention\.linear_qkv\.weight": (
        "of Megatron Core, whose layers are joined: convert it with Megatron Bridge, or with "
        "tools/checkpoint/convert.py of Megatron-LM"
    ),
    r"transformer\.layers\.\d+\.attention\.qkv\.weight": f"of TensorRT-LLM; {_MADE_OF}",
    r"params\..+\.(kernel|embedding|scale)": "of Flax: save the model for PyTorch, or give a model file that makes it",
    r".+\.lora_[ab]": "of LoRA by MLX: mlx_lm.fuse --model BASE --adapter-path FOLDER --save-path FUSED merges it",
}
"""By a regular expression of one of the names of tensors: whose names these are."""


def other_folder(folder: Path, weights: Collection[Path]) -> str:
    """The kind of a folder of another program, and what to do; empty for one that is not known.

    `weights`: its files with the endings of torch's.  Where one has another name than the program's, the folder has
    weights of its own beside them.
    """
    for patterns, said in _FOLDERS.items():
        own = [set(folder.glob(pattern)) for pattern in patterns]
        if all(own) and set().union(*own).issuperset(weights):
            return said.format(folder)
    return ""


def other_settings(config: Collection[str]) -> str:
    """The kind of the folder of a config.json with such keys, and what to do; empty for one that is not known."""
    return next((said for keys, said in _SETTINGS.items() if set(keys).issubset(config)), "")


def other_names(names: Iterable[str]) -> str:
    """The program whose names of tensors some are, and what to do: "its names are those of …"; empty for others."""
    given = list(names)
    for pattern, said in _NAMES.items():
        if any(re.fullmatch(pattern, name) for name in given):
            return f"its names are those {said}"
    return ""


def other_adapter(settings: Mapping[str, Any]) -> str:
    """The kind of an adapter whose settings are not peft's, and what to do; empty where they may be peft's."""
    if "fine_tune_type" in settings:
        return "an adapter of MLX; merge it: mlx_lm.fuse --model BASE --adapter-path {} --save-path FUSED"
    if "peft_type" not in settings and "config" in settings:
        return (
            "an adapter of the library adapters, which adds layers; give a model file that makes the model with it, as "
            "adapters.AutoAdapterModel does"
        )
    return ""
