"""Folders of transformers whose files or settings say more than one thing: what transformers itself takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from ir.errors import SourceError
from ir.sources import Reading, read_source
from tests.support.models.small_llama import SMALL, llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    llama().config.save_pretrained(tmp_path)
    configure(tmp_path, architectures=["LlamaForCausalLM"])
    return tmp_path


def configure(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def write(folder: Path, *files: Mapping[str, torch.Tensor]) -> None:
    """Save shards and their index, the last one first in it; it does not name the head."""
    place = dict[str, str]()
    for i, tensors in enumerate(files, 1):
        save_file(dict(tensors), folder / (name := f"model-0000{i}-of-0000{len(files)}.safetensors"))
        place = {n: name for n in tensors if n != "lm_head.weight"} | place
    index = {"metadata": {}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def halves(first: Callable[[str], bool], dtype: torch.dtype = torch.float32) -> tuple[dict[str, torch.Tensor], ...]:
    """The weights for which `first` holds, in another dtype, and the others."""
    tensors = {name: tensor.clone() for name, tensor in llama().state_dict().items()}
    return {n: t.to(dtype) for n, t in tensors.items() if first(n)}, {n: t for n, t in tensors.items() if not first(n)}


@pytest.mark.parametrize(("part", "dtype"), [("layers.0.", torch.bfloat16), ("norm", torch.float32)])
def test_without_a_dtype_that_of_the_first_tensor_is_taken(part: str, dtype: torch.dtype, folder: Path) -> None:
    configure(folder, dtype=None)
    some, others = halves(lambda n: part in n, dtype)
    both = {name: tensor.to(torch.bfloat16) for name, tensor in others.items()} if dtype == torch.float32 else others
    write(folder, some, both)
    assert next(read_source(str(folder)).model.parameters()).dtype == dtype  # of the first file
    (folder / "model.safetensors.index.json").unlink()
    save_file(some | both, folder / "model.safetensors")
    first = both["lm_head.weight"].dtype
    assert next(read_source(str(folder)).model.parameters()).dtype == first
    assert hf.AutoModelForCausalLM.from_pretrained(folder).dtype == first


def test_without_a_dtype_the_first_tensor_of_torchs_file_is_not_that_of_the_index(folder: Path) -> None:
    configure(folder, dtype=None)
    one, two = halves(lambda n: "layers.0.mlp" in n, torch.bfloat16)
    torch.save(one | two, folder / (name := "pytorch_model-00001-of-00001.bin"))
    index = {"metadata": {}, "weight_map": dict.fromkeys([*two, *one], name)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert next(read_source(str(folder)).model.parameters()).dtype == torch.bfloat16
    assert hf.AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16


def test_a_tensor_that_an_index_does_not_name(folder: Path) -> None:
    write(folder, *halves(lambda n: "layers.0." in n))
    weights = read_source(str(folder)).weights
    assert torch.equal(weights["lm_head.weight"], llama().lm_head.weight)


def test_a_tensor_in_two_shards(folder: Path) -> None:
    one, two = halves(lambda n: "layers.0." in n)
    name, tensor = next(iter(one.items()))
    write(folder, one, two | {name: tensor.clone()})
    assert torch.equal(read_source(str(folder)).weights[name], tensor)
    write(folder, one, two | {name: tensor + 1})
    with pytest.raises(SourceError, match=f"{name} is in model-.* and in model-.*, with other values; one of these"):
        read_source(str(folder))
    write(folder, one | {"lm_head.weight": two["lm_head.weight"] + 1}, two)  # which the index does not name
    with pytest.raises(SourceError, match=r"lm_head.weight is in model-.* and in model-.*, with other values"):
        read_source(str(folder))


def test_an_expert_that_is_missing_is_named(tmp_path: Path) -> None:
    """transformers itself names it in a report alone."""
    sizes: Any = {**SMALL, "num_key_value_heads": 2, "num_local_experts": 3}
    hf.MixtralForCausalLM(hf.MixtralConfig(**sizes)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    del tensors["model.layers.1.block_sparse_moe.experts.2.w1.weight"]
    save_file(tensors, file)
    with pytest.raises(SourceError, match=r"into MixtralForCausalLM: model.layers.1.mlp.experts.gate_up_proj: .*Error"):
        read_source(str(tmp_path))


CODE = """\
from transformers import LlamaForCausalLM

class Doubled(LlamaForCausalLM):
    pass
"""


def test_trusted_code_for_an_auto_class_replaces_the_librarys(folder: Path) -> None:
    (folder / "doubled.py").write_text(CODE)
    configure(folder, auto_map={"AutoModelForCausalLM": "doubled.Doubled"})
    for trust, name in (False, "LlamaForCausalLM"), (True, "Doubled"):
        source = read_source(str(folder), Reading(weights=False, trust_remote_code=trust))
        assert type(source.model).__name__ == name
    configure(folder, auto_map={"AutoModel": "doubled.Doubled"})  # of another auto class
    source = read_source(str(folder), Reading(weights=False, trust_remote_code=True))
    assert type(source.model).__name__ == "LlamaForCausalLM"
    configure(folder, architectures=None)
    for trust, name in (False, "LlamaModel"), (True, "Doubled"):
        source = read_source(str(folder), Reading(weights=False, trust_remote_code=trust))
        assert type(source.model).__name__ == name


@pytest.mark.parametrize(
    ("said", "dtype"), [("bfloat16", torch.bfloat16), ("int8", torch.float16), ("float8_e4m3fn", torch.float16)]
)
def test_without_a_dtype_that_of_the_index_is_taken(said: str, dtype: torch.dtype, folder: Path) -> None:
    configure(folder, dtype=None)
    write(folder, *halves(lambda n: "embed" in n, torch.float16))
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "metadata": {"dtype": said, "total_size": 1}}))
    assert next(read_source(str(folder)).model.parameters()).dtype == dtype
    if dtype == torch.bfloat16:
        assert hf.AutoModelForCausalLM.from_pretrained(folder).dtype == dtype


def test_a_class_of_a_part_has_the_configuration_of_that_part(tmp_path: Path) -> None:
    """As the text encoder that is saved with the configuration of its CLIP."""
    text: dict[str, Any] = {**SMALL, "max_position_embeddings": 20, "projection_dim": 16}
    config = hf.CLIPConfig(text_config=text, architectures=["CLIPTextModel"])
    hf.CLIPTextModel(hf.CLIPTextConfig(**text)).save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    source = read_source(str(tmp_path))
    assert type(source.model).__name__ == "CLIPTextModel"
    assert source.model.get_parameter("embeddings.token_embedding.weight").shape[0] == SMALL["vocab_size"]


def test_a_dtype_of_codes_is_not_that_of_the_model(folder: Path) -> None:
    configure(folder, dtype="float8_e4m3fn")
    assert next(read_source(str(folder), Reading(weights=False)).model.parameters()).dtype == torch.float32


def test_a_head_that_an_adapter_has_whole_is_untied(folder: Path) -> None:
    configure(folder, tie_word_embeddings=True)
    tensors = {n: t.clone() for n, t in llama().state_dict().items() if n != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors")
    saved = {"base_model.model.lm_head.weight": torch.ones_like(tensors["model.embed_tokens.weight"])}
    save_file(saved, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["q_proj"],
        "modules_to_save": ["lm_head"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    source = read_source(str(folder))
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    assert source.model.get_parameter(head) is not source.model.get_parameter(embedding)
    assert torch.equal(source.weights[head], saved[f"base_model.model.{head}"])
    assert torch.equal(source.weights[embedding], tensors[embedding])


def test_an_architecture_that_is_no_model_is_named(folder: Path) -> None:
    configure(folder, architectures=["AutoModelForCausalLM"])
    with pytest.raises(SourceError, match="AutoModelForCausalLM, which is no model itself; name the class that"):
        read_source(str(folder), Reading(weights=False))


def test_a_buffer_that_is_float32_in_any_model_stays_so(tmp_path: Path) -> None:
    """The bias by which DeepSeek-V3 chooses experts, in a model of bfloat16."""
    sizes: dict[str, Any] = {**SMALL, "num_hidden_layers": 1, "first_k_dense_replace": 0, "n_routed_experts": 4}
    config = hf.DeepseekV3Config(
        **sizes, moe_intermediate_size=16, n_group=2, topk_group=1, num_experts_per_tok=2, dtype="bfloat16"
    )
    model = hf.DeepseekV3ForCausalLM(config).bfloat16()
    gate: Any = model.get_submodule("model.layers.0.mlp.gate")
    gate.e_score_correction_bias = fine = torch.tensor([1.0, 1.001, 1.002, 1.003])
    model.save_pretrained(tmp_path)
    source, name = read_source(str(tmp_path)), "model.layers.0.mlp.gate.e_score_correction_bias"
    assert source.model.get_buffer(name).dtype == torch.float32
    assert torch.equal(source.weights[name], fine)


def test_a_table_that_no_checkpoint_has_is_that_of_a_loaded_model(tmp_path: Path) -> None:
    """CodeGen's positions: in bfloat16 where it is made in that, in float32 where it is loaded."""
    config = hf.CodeGenConfig(n_embd=32, n_layer=1, n_head=4, rotary_dim=8, n_positions=64, vocab_size=96)
    hf.CodeGenForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    name, loaded = "transformer.h.0.attn.embed_positions", hf.CodeGenForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(read_source(str(tmp_path)).model.get_buffer(name), loaded.get_buffer(name))


def test_rows_that_the_library_makes_zero_are_zero(tmp_path: Path) -> None:
    """Chinese-CLIP's own code sets the row of the padding token whenever it loads a checkpoint."""
    text: dict[str, Any] = {**SMALL, "max_position_embeddings": 20, "pad_token_id": 0}
    model = hf.ChineseCLIPTextModel(hf.ChineseCLIPTextConfig(**text))
    embeddings: Any = model.get_submodule("embeddings.word_embeddings")
    torch.nn.init.ones_(embeddings.weight)
    model.save_pretrained(tmp_path)
    found = read_source(str(tmp_path)).weights["embeddings.word_embeddings.weight"]
    loaded = hf.ChineseCLIPTextModel.from_pretrained(tmp_path)
    assert torch.equal(found, loaded.get_parameter("embeddings.word_embeddings.weight"))
    assert found[:2, 0].tolist() == [0, 1]
