"""Folders and files of other programs are said to be theirs, with what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import nn

from ir.capture import capture
from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.fitting import check_weights
from ir.errors import SourceError
from ir.sources import read_source

FOLDERS = {
    "model-rank-0-part-0.safetensors": "is vLLM's sharded state, whose layers are joined, and divided over ranks; give",
    "params.json consolidated.00.pth": r"is of Meta's own code; convert it .*llama_weights_to_hf.py --input_dir .*/in ",
    "params.json consolidated.safetensors": r"is of Mistral's own code; convert it .*mistral_weights_to_hf.py .*/in ",
    "rank0.engine": "is an engine of TensorRT-LLM, which holds compiled kernels; give the folder that it was made of",
    "transformer_blocks.safetensors unquantized_layers.safetensors": "is of nunchaku, whose SVDQuant weights are not",
    "model_config.yaml model_weights.ckpt": "is of NeMo; convert it: nemo llm export path=.*/in target=hf",
    "context/model.yaml weights/common.pt": "is of NeMo; convert it: nemo llm export path=.*/in target=hf",
    "layer_00-model_00-model_states.pt mp_rank_00_model_states.pt": "has a file for each layer, as GPT-NeoX",
    "_CHECKPOINT_METADATA": "is of Orbax, which is not read: load it with orbax.checkpoint, and save its weights",
    "params/manifest.ocdbt": "is of Orbax, which is not read",
    "model.bin shared_vocabulary.json": "is of CTranslate2, which is not read; give the folder that it was made of",
    "x.mlpackage/Manifest.json": "is of Core ML, which is not read; give the folder that it was made of",
    "ndarray-cache.json params_shard_0.bin": "is of MLC, which is not read; give the folder that it was made of",
    "genai_config.json model.onnx": "is of ONNX Runtime, which is not read; give the folder that it was made of",
    "saved_model.pb": "is a SavedModel of TensorFlow, which is not read: save its weights as .safetensors",
    "bert_model.ckpt.index": "is a checkpoint of TensorFlow, which is not read: save its weights as .safetensors",
    "x.keras": "has a file of Keras, which is not read: save its weights as .safetensors",
    "x.llamafile": "has a llamafile, which is a program with a GGUF file in it: unzip it, and give that file",
    "meta.json config.cfg": "is a pipeline of spaCy; give a model file that makes its model as a torch module",
    "pytorch_lora_weights.safetensors": "is a LoRA adapter of diffusers; give the folder of the pipeline that it is",
    "learned_embeds.safetensors": "is a textual inversion: load it into its pipeline, and save that with save_pretrain",
    "tokenizer.json": "has a tokenizer and no model; fetch config.json and the weights, too",
    "": "in is empty; fetch a checkpoint into it",
}


@pytest.mark.parametrize("names", FOLDERS)
def test_a_folder_of_another_program_is_named(names: str, tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    for name in names.split():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    with pytest.raises(SourceError, match=FOLDERS[names]):
        read_source(str(folder))


@pytest.mark.parametrize("beside", ["x.keras", "saved_model.pb", "genai_config.json", "meta.json config.cfg"])
def test_weights_beside_a_file_of_another_program_are_not_taken_for_its(beside: str, tmp_path: Path) -> None:
    for name in beside.split():
        (tmp_path / name).touch()
    torch.save({"x": torch.ones(1)}, tmp_path / "a.pt")
    assert list(Checkpoint.open(tmp_path)) == ["x"]
    torch.save({"x": torch.ones(2)}, tmp_path / "b.pt")
    with pytest.raises(SourceError, match=r"has several files of weights \(a.pt, b.pt\); name one with --checkpoint"):
        Checkpoint.open(tmp_path)
    with pytest.raises(SourceError, match=r"has weights without config.json; give a model file"):
        read_source(str(tmp_path))


def test_weights_beside_those_of_another_program_are_named(tmp_path: Path) -> None:
    for name in ("a.safetensors", "pytorch_lora_weights.safetensors"):
        save_file({"x": torch.ones(1)}, tmp_path / name)
    with pytest.raises(
        SourceError, match=r"several files of weights \(a.safetensors, pytorch_lora_weights.safetensors\)"
    ):
        Checkpoint.open(tmp_path)


def test_a_folder_for_the_weights_of_a_run_is_not_taken_for_nemo_s(tmp_path: Path) -> None:
    for name in ("context/log.txt", "weights/a.pt"):
        (tmp_path / name).parent.mkdir()
        torch.save({"x": torch.ones(1)}, tmp_path / name)
    with pytest.raises(SourceError, match=r"has weights in folders of its own \(weights\); name one with --checkpoint"):
        Checkpoint.open(tmp_path)


class Attention(nn.Module):
    """A model with the names of Meta's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.wq = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.ModuleDict({"attention": nn.ModuleDict({"wq": self.wq})})])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wq(x)


def test_names_that_the_model_has_itself_are_not_said_to_be_of_another_program(tmp_path: Path) -> None:
    save_file({"layers.0.attention.wq.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    held = Checkpoint.open(tmp_path)
    with pytest.raises(SourceError, match=r"holds no [\w.]*wq.bias$"):
        check_weights(capture(Attention(), (torch.ones(1, 2),)), held)
    with pytest.raises(SourceError, match=r"no weight, bias; its names are those of Meta's or Mistral's own code"):
        check_weights(capture(nn.Linear(2, 2), (torch.ones(1, 2),)), held)


def test_parts_for_ranks_are_not_taken_for_several_models(tmp_path: Path) -> None:
    for part in range(2):
        save_file({"x": torch.ones(part + 1)}, tmp_path / f"model-rank-{part}-part-0.safetensors")
    with pytest.raises(SourceError, match="is vLLM's sharded state"):
        Checkpoint.open(tmp_path)


NAMES = {
    "lora_unet_mid_block.lora_down.weight": "its names are those of a LoRA adapter in kohya's form; merge it into the",
    "unet.mid.lora_A.weight": "its names are those of a LoRA adapter of diffusers; merge it",
    "model.diffusion_model.out.weight": r"of a pipeline in one file: diffusers reads it, as .*from_single_file",
    "double_blocks.0.img_mod.lin.weight": "those of Flux in its makers' form: diffusers reads it, FluxTransform",
    "ip_adapter.1.to_k_ip.weight": "those of an IP-Adapter: give a model file that makes the model with it, as pipe",
    "<cat>": "its names are those of a textual inversion: load it into its pipeline",
    "layers.0.attention.wq.weight": "those of Meta's or Mistral's own code, or of torchtitan: convert it with llama/co",
    "layers.0.attn.output_proj.weight": "those of torchtune: save it with FullModelHFCheckpointer, or rename them by",
    "transformer.h.0.attn.qkv.weight": "those of LitGPT: convert it: litgpt convert_from_litgpt FOLDER CONVERTED",
    "model.decoder.layers.self_attention.linear_qkv.weight": "those of Megatron Core, whose layers are joined: conve",
    "transformer.layers.0.attention.qkv.weight": "those of TensorRT-LLM; give the folder that it was made of",
    "params.dense.kernel": "those of Flax: save the model for PyTorch, or give a model file that makes it",
    "model.q_proj.lora_a": "those of LoRA by MLX: mlx_lm.fuse --model BASE --adapter-path FOLDER --save-path FUSED",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_tensors_say_whose_they_are(name: str, tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    save_file({name: torch.ones(2)}, folder / "x.safetensors")
    for source in (folder, folder / "x.safetensors"):
        with pytest.raises(SourceError, match=NAMES[name]):
            read_source(str(source))
    with pytest.raises(SourceError, match=rf"in has no adapter_config.json: it has weights, and .*{NAMES[name][:20]}"):
        Adapter.open(folder)


SETTINGS = [
    (
        {"architecture": "LlamaForCausalLM", "mapping": {}},
        "is of TensorRT-LLM, whose layers are joined; give the fold",
    ),
    ({"pretrained_config": {}, "build_config": {}}, "is an engine of TensorRT-LLM, which holds compiled kernels"),
    ({"module": "keras_hub.models", "class_name": "X"}, "is of Keras, which is not read: save its weights as .safe"),
    (
        {"model_type": "llama", "paddlenlp_version": "3"},
        "is of PaddleNLP, whose linear layers lie across: save it wi",
    ),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_settings_say_whose_a_folder_is(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(SourceError, match=message):
        read_source(str(tmp_path))


def test_a_folder_that_was_saved_for_torch_is_read_in_spite_of_such_settings(tmp_path: Path) -> None:
    config = hf.LlamaConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    hf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "paddlenlp_version": None}))
    assert len(read_source(str(tmp_path)).weights) > 0


def test_settings_without_a_type_are_looked_up_by_files(tmp_path: Path) -> None:
    for name in ("model.bin", "vocabulary.json"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match="is of CTranslate2, which is not read"):
        read_source(str(tmp_path))


def test_a_configuration_without_weights_may_be_planned(tmp_path: Path) -> None:
    hf.LlamaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(SourceError, match="or index of shards; fetch them, or plan without: --weights none"):
        read_source(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fine_tune_type": "lora"}, "has an adapter of MLX; merge it: mlx_lm.fuse --model BASE --adapter-path .*"),
        ({"config": {"reduction_factor": 16}}, "has an adapter of the library adapters, which adds layers; give a mod"),
    ],
)
def test_an_adapter_of_another_library_is_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(SourceError, match=message):
        Adapter.open(tmp_path)
