"""Folders of transformers, as they are saved, renamed, fetched and left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict_saver import save

from tests.support.models.small_llama import SMALL, llama
from tests.zoo.checkpoints.kinds import IDS, Kind, Tried
from tests.zoo.checkpoints.pictures import PICTURES


def folder_of(change: Callable[[Path], Any], at: str = "m", refused: bool = False, **options: Any) -> Kind:
    """The folder that transformers saves, once `change` has changed it; `at` is the path to name."""

    def make(folder: Path) -> Tried:
        (folder / at).mkdir(parents=True, exist_ok=True)
        llama().save_pretrained(folder / at, max_shard_size="60KB" if at == "shards" else "5GB")
        found = change(folder / at)
        expected = llama() if found is None else found
        with torch.no_grad():
            logits = None if refused else expected(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        source = folder / at if at in ("m", "shards") else folder / at.split("/")[0]
        call: dict[str, Any] = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
        call |= {"adapter": "m"} if options.get("adapter") == "keep" else {}
        return Tried(str(source), call, logits, options)

    return make


def rewritten(name: str, rename: Callable[[str], str] = str) -> Callable[[Path], None]:
    """Save the weights under another file's name, and other names of tensors."""

    def change(folder: Path) -> None:
        tensors = {rename(n): t for n, t in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name, metadata={"format": "pt"})
        else:
            torch.save(tensors, folder / name)

    return change


def as_distributed(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    save(llama().state_dict(), checkpoint_id=folder / "pytorch_model_fsdp_0", no_dist=True)


def snapshot(folder: Path) -> None:
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs/main").write_text(folder.name)


def only(files: Mapping[str, Any]) -> Callable[[Path], None]:
    """A folder with these small files alone."""

    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(content))

    return change


def with_older(folder: Path) -> None:
    """A second snapshot in the hub's cache, which is not that of `main`."""
    snapshot(folder)
    other = shutil.copytree(folder, folder.parent / "4567")
    save_file({n: t * 0 for n, t in load_file(other / "model.safetensors").items()}, other / "model.safetensors")


def half_shards(folder: Path) -> Any:
    """The weights in float16, in two files and an index that have the variant in their names; returns the model."""
    tensors, place = load_file(folder / "model.safetensors"), dict[str, str]()
    (folder / "model.safetensors").unlink()
    for i in (1, 2):
        name = f"model.fp16-0000{i}-of-00002.safetensors"
        part = {n: t.half() for n, t in list(tensors.items())[i - 1 :: 2]}
        save_file(part, folder / name, metadata={"format": "pt"})
        place |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.fp16.json").write_text(json.dumps({"weight_map": place}))
    return deepcopy(llama()).half().float()


def beside(name: str, content: Any = b"", moved: str = "model.safetensors") -> Callable[[Path], None]:
    """Another file in place of the weights: `content`, or these themselves for None."""

    def change(folder: Path) -> None:
        weights = (folder / moved).read_bytes()
        (folder / moved).unlink()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(weights if content is None else content)

    return change


def two_formats(folder: Path) -> None:
    """Other weights in a .bin beside the .safetensors, which is read, as transformers does."""
    zeros = {name: tensor * 0 for name, tensor in load_file(folder / "model.safetensors").items()}
    torch.save(zeros, folder / "pytorch_model.bin")


def as_legacy(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors").unlink()


def misnamed(folder: Path) -> None:
    tensors = llama().state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "model.safetensors")


def unnamed(folder: Path) -> None:
    """A tensor that is in a shard, and not in the index."""
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    del index["weight_map"]["model.norm.weight"]
    file.write_text(json.dumps(index))


def twice(folder: Path) -> None:
    """A tensor in two shards, with other values."""
    first, *_, last = sorted(folder.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    tensors = {n: t.clone() for n, t in load_file(last).items()}
    save_file({**tensors, name: tensor + 1}, last, metadata={"format": "pt"})


def wide_norms(folder: Path) -> Any:
    """All but norms in float16, and no dtype in the configuration; returns the model."""
    file = folder / "model.safetensors"
    tensors = {n: t.clone() if "norm" in n else t.half() for n, t in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    configured(dtype=None)(folder)
    return hf.AutoModelForCausalLM.from_pretrained(folder)


CODE = "from transformers import LlamaForCausalLM\n\n\nclass Mine(LlamaForCausalLM):\n    pass\n"


def with_code(folder: Path) -> None:
    """Code of the folder's own for a class that transformers has, too."""
    (folder / "mine.py").write_text(CODE)
    configured(auto_map={"AutoModelForCausalLM": "mine.Mine"})(folder)


def linked_nowhere(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")


def configured(**settings: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))

    return change


def own_form(folder: Path) -> None:
    """The files of a model's makers, as Mistral and Meta publish them."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "params.json").write_text("{}")
    save_file({"tok_embeddings.weight": torch.ones(2, 2)}, folder / "consolidated.safetensors")


def later(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "checkpoint-1000")


def fine_choices(folder: Path) -> Any:
    """A DeepSeek-V3 in bfloat16, but for the bias by which it chooses experts; returns the model."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SMALL, "num_key_value_heads": 4, "first_k_dense_replace": 1, "n_routed_experts": 8}
    heads: dict[str, Any] = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
    routes: dict[str, Any] = {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = hf.DeepseekV3Config(**sizes, **heads, **routes, v_head_dim=8, use_cache=False, dtype="bfloat16")
    model: Any = hf.DeepseekV3ForCausalLM(config).bfloat16().eval()
    model.model.layers[1].mlp.gate.e_score_correction_bias = torch.linspace(1, 1.01, 8)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return hf.AutoModelForCausalLM.from_pretrained(folder)


def positions(folder: Path) -> Any:
    """A GPT-J in float16, whose table of positions transformers computes in float32; returns the model."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 64}
    config = hf.GPTJConfig(**sizes, vocab_size=96, n_inner=64, use_cache=False, dtype="float16")
    (folder / "model.safetensors").unlink()
    hf.GPTJForCausalLM(config).half().save_pretrained(folder)
    return hf.AutoModelForCausalLM.from_pretrained(folder)


def exported(folder: Path) -> Tried:
    call = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    with torch.no_grad():
        torch.export.save(torch.export.export(llama(), (), call), folder / "m.pt2")
        return Tried(str(folder / "m.pt2"), call, llama()(**call).logits)


def sentences(folder: Path) -> Tried:
    """A folder of sentence-transformers: a transformer, a mean over tokens, a linear layer, and a norm."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SMALL, "max_position_embeddings": 32}
    model, dense = hf.BertModel(hf.BertConfig(**sizes), add_pooling_layer=False).eval(), torch.nn.Linear(32, 8)
    model.save_pretrained(folder / "m")
    parts = ("models.Transformer", ""), ("models.Pooling", "1_Pooling"), ("models.Dense", "2_Dense")
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
        for i, (kind, path) in enumerate((*parts, ("models.Normalize", "3_Normalize")))
    ]
    (folder / "m/modules.json").write_text(json.dumps(listed))
    for _, path in parts[1:]:
        (folder / "m" / path).mkdir()
    (folder / "m/3_Normalize").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "m/1_Pooling/config.json").write_text(json.dumps(pooling))
    tanh = {
        "in_features": 32,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    (folder / "m/2_Dense/config.json").write_text(json.dumps(tanh))
    save_file({f"linear.{n}": t for n, t in dense.state_dict().items()}, folder / "m/2_Dense/model.safetensors")
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    with torch.no_grad():
        states = model(input_ids=IDS, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        wanted = torch.nn.functional.normalize(dense(mean).tanh(), dim=-1)
    return Tried(str(folder / "m"), {"input_ids": IDS, "attention_mask": mask}, wanted)


def words(folder: Path) -> Tried:
    """A folder of a sparse encoder of sentence-transformers: of each text the weights of words."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = SMALL
    model = hf.BertForMaskedLM(hf.BertConfig(**sizes)).eval()
    model.save_pretrained(folder / "m")
    kinds = {"transformer.Transformer": "", "sparse_encoder.modules.splade_pooling.SpladePooling": "1_SpladePooling"}
    listed = [{"path": path, "type": f"sentence_transformers.{kind}"} for kind, path in kinds.items()]
    (folder / "m/modules.json").write_text(json.dumps(listed))
    (folder / "m/1_SpladePooling").mkdir()
    (folder / "m/1_SpladePooling/config.json").write_text(json.dumps({"pooling_strategy": "max"}))
    mask = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=mask).logits
        wanted = torch.log1p(torch.relu(logits) * mask[..., None]).amax(1)
    return Tried(str(folder / "m"), {"input_ids": IDS, "attention_mask": mask}, wanted)


def table_of_words(folder: Path) -> Tried:
    """A folder of sentence-transformers without a transformer: the mean of a text's rows of a table."""
    (folder / "m/0_StaticEmbedding").mkdir(parents=True)
    listed = [{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]
    (folder / "m/modules.json").write_text(json.dumps(listed))
    save_file({"embedding.weight": torch.ones(96, 8)}, folder / "m/0_StaticEmbedding/model.safetensors")
    return Tried(str(folder / "m"), {}, None)


def named_file(name: str) -> Kind:
    """A file of a folder in place of the folder."""

    def make(folder: Path) -> Tried:
        llama().save_pretrained(folder / "m")
        return Tried(str(folder / "m" / name), {}, None)

    return make


def archive(folder: Path) -> Tried:
    llama().save_pretrained(folder / "x")
    return Tried(shutil.make_archive(str(folder / "m"), "zip", folder / "x"), {}, None)


FOLDERS: dict[str, Kind] = {
    "transformers": folder_of(lambda folder: None),
    "transformers, shards": folder_of(lambda folder: None, at="shards"),
    "transformers, `.bin`": folder_of(rewritten("pytorch_model.bin")),
    "transformers, `--variant fp16`": folder_of(rewritten("model.fp16.safetensors"), variant="fp16"),
    "transformers, a variant alone": folder_of(rewritten("model.fp16.safetensors")),
    "transformers, names with `net.module.`": folder_of(rewritten("model.safetensors", "net.module.{}".format)),
    "accelerate, `pytorch_model_fsdp_0`": folder_of(as_distributed),
    "the hub's cache": folder_of(snapshot, at="models--a--b/snapshots/0123"),
    "the hub's cache, two snapshots": folder_of(with_older, at="models--a--b/snapshots/0123"),
    "transformers, `--variant fp16`, shards": folder_of(half_shards, variant="fp16", dtype="float32"),
    "transformers, names with `_orig_mod.`": folder_of(rewritten("model.safetensors", "_orig_mod.{}".format)),
    "transformers, names with `base_model.model.`": folder_of(
        rewritten("model.safetensors", "base_model.model.{}".format)
    ),
    "transformers, other weights in a `.bin` beside": folder_of(two_formats),
    "transformers, a `.pt2`": exported,
    "sentence-transformers, with Dense and Normalize": sentences,
    "sentence-transformers, a sparse encoder (SPLADE)": words,
    "sentence-transformers, a table of words (StaticEmbedding)": table_of_words,
    **PICTURES,
    "a folder's file of weights": named_file("model.safetensors"),
    "a folder's config.json": named_file("config.json"),
    "a folder in an archive": archive,
    "a Trainer's output, two checkpoints": folder_of(later, at="run/checkpoint-500", refused=True),
    "a Trainer's output": folder_of(lambda folder: None, at="run/checkpoint-500", refused=True),
    "a Trainer's output, of adapters": folder_of(
        only({"adapter_config.json": {"peft_type": "LORA"}}), at="run/checkpoint-500", refused=True
    ),
    "the hub's cache, above its models": folder_of(
        lambda folder: None, at="hub/models--a--b/snapshots/0123", refused=True
    ),
    "transformers, a `.bin` of torch before 1.6": folder_of(as_legacy),
    "transformers, shards, a tensor that the index does not name": folder_of(unnamed, at="shards"),
    "transformers, shards, a tensor in two of them with other values": folder_of(twice, at="shards", refused=True),
    "transformers, dtypes that differ and none in config.json": folder_of(wide_norms),
    "transformers, a head of other values than config.json ties it to": folder_of(configured(tie_word_embeddings=True)),
    "transformers, code in the folder, not trusted": folder_of(with_code),
    "transformers, code in the folder, with `--trust-remote-code`": folder_of(with_code, trust_remote_code=True),
    "DeepSeek-V3 in bfloat16, with a bias of its router in float32": folder_of(fine_choices),
    "GPT-J in float16, whose positions are made in float32": folder_of(positions),
    "transformers, `--variant fp16` that is not there": folder_of(lambda folder: None, refused=True, variant="fp16"),
    "config.json that names an auto class": folder_of(configured(architectures=["AutoModelForCausalLM"]), refused=True),
    "a file of torch.save that is named .safetensors": folder_of(misnamed, refused=True),
    "config.json, and a web page in place of the weights": folder_of(
        beside("model.safetensors", b"<!doctype html>"), refused=True
    ),
    "shards without their index": folder_of(beside("model-00001-of-00002.safetensors"), refused=True),
    "a pipeline of diffusers without its models": folder_of(
        only({"model_index.json": {}, "unet/config.json": {}}), refused=True
    ),
    "a component of diffusers": folder_of(
        only({"config.json": {"_class_name": "LTXVideoTransformer3DModel", "_diffusers_version": "0.36"}}), refused=True
    ),
    "GGUF": folder_of(only({"x-Q4_K_M.gguf": ""}), refused=True),
    "config.json, and GGUF": folder_of(beside("x-Q4_K_M.gguf"), refused=True),
    "config.json, and weights of TensorFlow": folder_of(beside("tf_model.h5"), refused=True),
    "config.json, and weights of Flax": folder_of(beside("flax_model.msgpack"), refused=True),
    "config.json, and ONNX in a folder": folder_of(beside("onnx/model.onnx"), refused=True),
    "a pointer of git-lfs in place of the weights": folder_of(
        beside("model.safetensors", b"version https://git-lfs.github.com/spec/v1\nsize 9\n"), refused=True
    ),
    "an index of shards that are not here": folder_of(
        beside("model.safetensors.index.json", b'{"weight_map": {"lm_head.weight": "model-1.safetensors"}}'),
        refused=True,
    ),
    "an index of nothing": folder_of(beside("model.safetensors.index.json", b'{"weight_map": {}}'), refused=True),
    "weights of no bytes": folder_of(beside("model.safetensors"), refused=True),
    "a link to nothing": folder_of(linked_nowhere, refused=True),
    "MLX, 4 bits": folder_of(
        configured(quantization={"group_size": 64, "bits": 4}, quantization_config={"group_size": 64, "bits": 4}),
        refused=True,
    ),
    "EXL2": folder_of(configured(quantization_config={"quant_method": "exl2", "bits": 4.0}), refused=True),
    "a model of another size": folder_of(configured(intermediate_size=48), refused=True),
    "the form of the model's makers, `params.json`": folder_of(own_form, refused=True),
    "weights without config.json": folder_of(only({"model.safetensors": ""}), refused=True),
}
