"""Checkpoints on disk give a model the tensors that transformers' own from_pretrained gives it."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from ir.analysis.memory import stored_bytes
from ir.capture import capture
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.files import read_checkpoint
from ir.checkpoint.fitting import check_linked, check_weights
from ir.checkpoint.names import own_tensors
from ir.checkpoint.tensors import Stored
from ir.errors import SourceError
from ir.sources import Reading, read_source
from passes.cli.exporting import main
from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.device.kinds import DEVICE_KINDS, DeviceKind

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
LATENT: dict[str, Any] = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
PICTURES: dict[str, Any] = {"image_size": 16, "patch_size": 8}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)),
    "tied": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SMALL, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**SMALL)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**SMALL, **EXPERTS, num_experts=4)),
    "deepseek_v3": lambda: hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(
            **SMALL | LATENT, **EXPERTS, n_routed_experts=4, n_group=2, topk_group=1, first_k_dense_replace=1
        )
    ),
    "gpt_oss": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**SMALL, head_dim=8, num_local_experts=4)),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**SMALL, **PICTURES)),
    "rwkv, rescaled": lambda: hf.RwkvForCausalLM(
        hf.RwkvConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32, rescale_every=1)
    ),
    "sinusoids in no checkpoint": lambda: hf.MarianMTModel(
        hf.MarianConfig(
            vocab_size=96,
            pad_token_id=0,
            decoder_start_token_id=0,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=16,
        )
    ),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    ),
}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def assert_loaded_alike(model: nn.Module, folder: Path, **options: Any) -> Checkpoint:
    """Compare each tensor with what from_pretrained makes of the folder."""
    expected = type(model).from_pretrained(folder, **options).state_dict()  # type: ignore[attr-defined]
    found = Checkpoint.open(folder).for_model(model)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name].to(tensor.dtype), tensor), name
    return found


@pytest.mark.parametrize("name", MODELS)
def test_as_from_pretrained(name: str, tmp_path: Path) -> None:
    made(name).save_pretrained(tmp_path, max_shard_size="40KB")  # type: ignore[operator]
    found = assert_loaded_alike(made(name), tmp_path)
    assert not found.notes
    if name in ("mixtral", "qwen3_moe", "deepseek_v3", "gpt2", "vit"):
        assert all(isinstance(t, Stored) for t in found.tensors.values())  # so that it can be linked


def test_fp8_experts_are_merged_a_block_at_a_time(tmp_path: Path) -> None:
    model = made("qwen3_moe").bfloat16()
    write_fp8(model, tmp_path)
    options = {"quantization_config": hf.FineGrainedFP8Config(dequantize=True)}
    found = assert_loaded_alike(model, tmp_path, **options)
    experts = found.tensors["model.layers.0.mlp.experts.gate_up_proj"]
    assert [len(block) for block in experts.blocks(torch.bfloat16)] == [16 * 32] * 8  # gate and up of each expert
    with pytest.raises(
        SourceError,
        match="has quantized weights, which stages hold dequantized; say --weights copy, or",
    ):
        check_linked(found)


def test_fp8_weights_stay_as_they_are_stored_and_may_be_linked(tmp_path: Path) -> None:
    model = made("llama").bfloat16()
    write_fp8(model, tmp_path / "ck")
    stages: dict[str, Any] = {"stages": 2, "time_limit": 2.0, "size_limit": 0.0, "progress": False}
    plan = compile_model(tmp_path / "ck", out=tmp_path / "out", weights="link", **stages)
    uncut = type(model).from_pretrained(  # type: ignore[attr-defined]
        tmp_path / "ck", quantization_config=hf.FineGrainedFP8Config(dequantize=True)
    )
    ids = torch.arange(14).view(2, 7) + 3
    with Pipeline.load(tmp_path / "out") as pipe, torch.no_grad():
        found = pipe(input_ids=ids, attention_mask=torch.ones_like(ids))
        assert torch.equal(found.logits, uncut(input_ids=ids).logits)
    stored = load_file(tmp_path / "ck/model.safetensors")
    assert stored_bytes(plan.graph.params) == sum(tensor.nbytes for tensor in stored.values())
    without = read_source(str(tmp_path / "ck"), Reading(weights=False))
    assert "the checkpoint is quantized (fp8); the plan counts its weights as it stores them" in without.notes


def test_texts_are_continued_from_weights_as_they_are_stored(tmp_path: Path) -> None:
    """As planned for a GPU: layers of one input are one product of stored weights, which lie side by side."""
    model = made("llama").bfloat16()
    write_fp8(model, tmp_path / "ck")
    room: dict[str, Any] = {"generate": True, "max_length": 24, "sequences": 1}
    compile_model(tmp_path / "ck", out=tmp_path / "out", cluster="h200x1", progress=False, **room)
    uncut = type(model).from_pretrained(  # type: ignore[attr-defined]
        tmp_path / "ck", quantization_config=hf.FineGrainedFP8Config(dequantize=True)
    )
    wanted = uncut.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    kinds = {"cpu": DeviceKind("cpu", merges_linear=True)}
    with patch.dict(DEVICE_KINDS, kinds), Pipeline.load(tmp_path / "out", devices=["cpu"], processes=False) as pipe:
        found = pipe.start([5, 6, 7], max_new_tokens=12, temperature=0.0).result()
    assert [5, 6, 7, *found] == wanted[0].tolist()
    assert "[self.q_proj.weight, self.k_proj.weight, self.v_proj.weight]" in (tmp_path / "out/stage_0.py").read_text()


def write_fp8(model: Any, folder: Path) -> None:
    """Save a model with its linear layers in fp8, a scale for each block of 16 x 16."""
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    for name in [name for name in stored if name.endswith("proj.weight")]:
        rows, columns = (n // 16 for n in stored[name].shape)
        stored[name] = stored[name].to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = torch.rand(rows, columns) + 0.5
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["tied", "mixtral", "bert"])
def test_a_pickled_one(name: str, tmp_path: Path) -> None:
    made(name).save_pretrained(tmp_path)  # type: ignore[operator]
    pickled(tmp_path)
    assert_loaded_alike(made(name), tmp_path)


def pickled(folder: Path, rename: Callable[[str], str] = str) -> None:
    """Save the checkpoint as people did before safetensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({rename(name): tensor for name, tensor in tensors.items()}, folder / "pytorch_model.bin")


def test_names_of_old(tmp_path: Path) -> None:
    made("bert").save_pretrained(tmp_path)  # type: ignore[operator]
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    pickled(tmp_path, lambda name: next((name.replace(n, o) for n, o in old.items() if n in name), name))
    assert any("gamma" in name for name in read_checkpoint(tmp_path)[""])
    assert_loaded_alike(made("bert"), tmp_path)


def test_a_tied_weight_under_its_other_name(tmp_path: Path) -> None:
    made("tied").save_pretrained(tmp_path)  # type: ignore[operator]
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    assert_loaded_alike(made("tied"), tmp_path)


def test_a_base_model_from_a_model_with_a_head(tmp_path: Path) -> None:
    made("bert").save_pretrained(tmp_path)  # type: ignore[operator]
    base = hf.BertModel(hf.BertConfig(**SMALL), add_pooling_layer=False)
    found = assert_loaded_alike(base, tmp_path, add_pooling_layer=False)
    assert "also holds cls.predictions.bias, " in found.notes[0]


def test_a_model_with_a_head_from_a_base_model(tmp_path: Path) -> None:
    """What the base lacks is missing: transformers would make it up."""
    hf.BertModel(hf.BertConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path)
    expected = hf.BertForMaskedLM.from_pretrained(tmp_path).state_dict()
    found = Checkpoint.open(tmp_path).for_model(made("bert"))
    assert {n for n in expected if n not in found and "cls." not in n} == set()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert "cls.predictions.transform.dense.weight" not in found


def test_what_wraps_a_module_or_lies_in_it(tmp_path: Path) -> None:
    inner = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    save_file({f"module.{k}": v for k, v in inner.state_dict().items()}, tmp_path / "wrapped.safetensors")
    save_file(inner.state_dict(), tmp_path / "bare.safetensors")
    outer = nn.ModuleDict({"module": inner})
    for file, model in (("wrapped", inner), ("bare", outer), ("bare", inner), ("wrapped", outer)):
        found = Checkpoint.open(tmp_path / f"{file}.safetensors").for_model(model)
        assert not found.notes
        assert all(torch.equal(found[k], v) for k, v in model.state_dict().items())


def test_tables_and_prefixes_are_found_by_the_names_that_fit(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    weights = model.state_dict()
    moments = {"state": {0: {"exp_avg": torch.ones(2)}}}
    for table in (
        {"model_state_dict": weights, "optimizer": moments, "args": Namespace(lr=0.1)},
        {"net": {"model": weights}, "other": {"weight": torch.ones(2)}},
        {f"_orig_mod.module.{name}": tensor for name, tensor in weights.items()},
        {"model": {f"module.model.{name}": tensor for name, tensor in weights.items()}},
    ):
        torch.save(table, tmp_path / "c.bin")
        found = Checkpoint.open(tmp_path / "c.bin").for_model(model)
        assert not found.notes
        assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_of_two_prefixes_that_fit_one_must_be_said(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({**model.state_dict(prefix="model."), **other.state_dict(prefix="ema.")}, tmp_path / "c.bin")
    both = Checkpoint.open(tmp_path / "c.bin")
    with pytest.raises(
        SourceError, match=r"weights for the model under `ema.` and `model.`: say --weights-prefix ema."
    ):
        both.for_model(model)
    assert torch.equal(both.under("ema.").for_model(model)["weight"], other.weight)
    with pytest.raises(SourceError, match=r"c.bin holds no name that begins with teacher.: it has model.weight, "):
        both.under("teacher.")


def test_two_names_of_one_tensor_are_no_choice(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save({**model.state_dict(prefix="a."), **model.state_dict(prefix="b.")}, tmp_path / "c.bin")
    assert torch.equal(Checkpoint.open(tmp_path / "c.bin").for_model(model)["weight"], model.weight)


def test_the_prefix_of_a_table_begins_with_its_key(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"model": model.state_dict(), "ema": other.state_dict(prefix="net.")}, tmp_path / "c.bin")
    chosen = Checkpoint.open(tmp_path / "c.bin").under("ema.net.").for_model(model)
    assert torch.equal(chosen["weight"], other.weight)


def test_of_two_tables_that_fit_one_must_be_said(tmp_path: Path) -> None:
    model, ema = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({"model": model.state_dict(), "model_ema": ema.state_dict(), "epoch": 1}, tmp_path / "c.bin")
    both = Checkpoint.open(tmp_path / "c.bin")
    with pytest.raises(SourceError, match=r"under `model.` and `model_ema.`: say --weights-prefix model., or so"):
        both.for_model(model)
    assert torch.equal(both.under("model_ema.").for_model(model)["weight"], ema.weight)
    same = model.state_dict()
    torch.save({"model": same, "model_ema": same}, tmp_path / "c.bin")
    assert torch.equal(Checkpoint.open(tmp_path / "c.bin").for_model(model)["weight"], model.weight)


@pytest.mark.parametrize("wrapped", ["net.module.{}", "model.0.{}", "_orig_mod.{}"])
def test_a_transformers_model_that_training_wrapped(wrapped: str, tmp_path: Path) -> None:
    made("tied").save_pretrained(tmp_path)  # type: ignore[operator]
    inner = "_fsdp_wrapped_module.layers.0._checkpoint_wrapped_module."
    pickled(tmp_path, lambda name: wrapped.format(name.replace("layers.0.", inner)))
    found = Checkpoint.open(tmp_path).for_model(made("tied"))
    expected = made("tied").state_dict()
    assert not found.notes
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_wrapper_that_renames_in_the_state_dict(tmp_path: Path) -> None:
    """Its parameters have the names of the modules that hold them; files have those of the state dict."""
    model = nn.Sequential(checkpoint_wrapper(nn.Linear(2, 2)), nn.Linear(2, 2))
    assert next(iter(model.state_dict())) == "0.weight"
    inner = "0._checkpoint_wrapped_module.weight"
    assert own_tensors(model)[inner] is model.get_parameter(inner)
    save_file(model.state_dict(), tmp_path / "c.safetensors")
    found = Checkpoint.open(tmp_path / "c.safetensors").for_model(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert torch.equal(found[inner], model.state_dict()["0.weight"])


def test_what_fits_nowhere_says_what_there_is(tmp_path: Path) -> None:
    torch.save({"optimizer": {"exp_avg": torch.ones(2)}}, tmp_path / "c.bin")
    graph, found = capture(nn.Linear(2, 2), (torch.ones(1, 2),)), Checkpoint.open(tmp_path / "c.bin")
    with pytest.raises(SourceError, match=r"c.bin holds optimizer.exp_avg, and no weight, bias$"):
        check_weights(graph, found.for_model(nn.Linear(2, 2)))
    with pytest.raises(SourceError, match=r"^the weights of the model hold no weight, bias$"):
        check_weights(graph, {"other": torch.ones(2, 2)})


def test_a_class_that_its_user_changed_is_told(tmp_path: Path) -> None:
    class Odd(hf.LlamaForCausalLM):
        def __init__(self, config: hf.LlamaConfig, *, needed: int) -> None:
            super().__init__(config)

    made("llama").save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(SourceError, match=r"transformers cannot load .* into Odd: .*needed"):
        Checkpoint.open(tmp_path).for_model(Odd(hf.LlamaConfig(**SMALL), needed=1))


def test_exported_codes_are_not_read_by_the_settings_of_their_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NVFP4, whose stages have the scale of all blocks under another name than ModelOpt."""
    made("llama").save_pretrained(tmp_path / "ck")  # type: ignore[attr-defined]
    tensors = load_file(tmp_path / "ck/model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    rows, columns = tensors[name].shape
    codes = torch.arange(rows * columns // 2).view(rows, -1).to(torch.uint8)
    scale = torch.ones(rows, columns // 16).to(torch.float8_e4m3fn)
    stored = {name: codes, f"{name}_scale": scale, f"{name}_scale_2": torch.tensor(0.01)}
    save_file(tensors | stored, tmp_path / "ck/model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "ck/config.json").read_text())
    settings = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    (tmp_path / "ck/config.json").write_text(json.dumps(config | settings))
    compile_model(tmp_path / "ck", out=tmp_path / "out", stages=1, time_limit=2.0, size_limit=0.0, progress=False)
    assert main([str(tmp_path / "out"), "-o", str(tmp_path / "whole")]) == 0
    assert (
        "; 1 weights are quantized, under names that no library reads: for others to read, export an artifact of "
        in (capsys.readouterr().out)
    )
    assert Checkpoint.open(tmp_path / "whole").tensors[name].dtype == torch.uint8
    shutil.copy(tmp_path / "ck/config.json", tmp_path / "whole")
    with pytest.raises(
        SourceError, match=r"whole has weights as stages hold them, whose names are not those of modelop"
    ):
        Checkpoint.open(tmp_path / "whole")
