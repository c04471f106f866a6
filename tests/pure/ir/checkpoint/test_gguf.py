"""GGUF files are dequantized by their own package, a block of rows at a time; what is not read is refused in words."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import save_file
from torch import nn
from transformers import modeling_gguf_pytorch_utils

from ir.checkpoint.adapters.adapter import Adapter
from ir.checkpoint.checkpoint import Checkpoint
from ir.checkpoint.formats.gguf import tensors as gguf
from ir.checkpoint.formats.gguf.file import GgufFile
from ir.checkpoint.formats.gguf.layers import FalconProcessor
from ir.checkpoint.formats.gguf.tensors import gguf_tensors
from ir.errors import SourceError
from ir.sources import Reading, checkpoint_folder, read_source
from ir.sources.folders import model_folder

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
SMALL: dict[str, Any] = {**SIZES, "vocab_size": 96}
ADDED = "; give the checkpoint that it was made of"


def halves(rows: Any, _: Any) -> Any:
    """The numbers of a made-up format: bytes, of which each is two."""
    return rows.astype(np.float32) / 2


def entry(name: str, *shape: int) -> Any:
    data = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return SimpleNamespace(name=name, shape=shape[::-1], data=data, tensor_type=SimpleNamespace(name="Q8_0"))


class Fields(dict[str, Any]):
    """The fields of a file, as the package has them."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return SimpleNamespace(contents=lambda: value)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the package, and for transformers' reading of names."""
    entries = [entry("blk.0.ffn_up.weight", 12, 8), entry("blk.0.attn_q.weight", 32, 8), entry("rope_freqs.weight", 4)]
    fields = Fields({"general.architecture": "llama"})
    made = SimpleNamespace(dequantize=halves, fields=fields, entries=entries)
    made.GGUFReader = lambda path: SimpleNamespace(tensors=made.entries, fields=fields)
    library: Any = modeling_gguf_pytorch_utils
    names = {"blk.0.ffn_up.weight": "up", "blk.0.attn_q.weight": "q"}
    monkeypatch.setitem(sys.modules, "gguf", made)
    monkeypatch.setattr(library, "get_gguf_hf_weights_map", lambda *_: names)
    return made


def read(model: nn.Module, name: str = "x.gguf") -> dict[str, Any]:
    return gguf_tensors(GgufFile.open(Path(name)), model)


def model() -> nn.Module:
    with torch.device("meta"):
        return t.LlamaForCausalLM(t.LlamaConfig(**SMALL))


def test_tensors_are_read_under_the_names_of_the_model(package: Any) -> None:
    found = read(model())
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        "up": ((12, 8), torch.float32),
        "q": ((32, 8), torch.float32),
    }
    assert torch.equal(found["up"].read(torch.float32), torch.arange(96).view(12, 8) / 2)
    pairs = found["q"].read(torch.float32).view(4, 2, 4, 8)  # of each head, rows lie in pairs in the file
    assert torch.equal(pairs.transpose(1, 2).reshape(32, 8), torch.arange(256).view(32, 8) / 2)


def test_blocks_are_rows_but_where_rows_change_places(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "BLOCK_ELEMENTS", 20)
    found = read(model())
    sizes = {name: [len(block) for block in tensor.blocks(torch.bfloat16)] for name, tensor in found.items()}
    assert sizes == {"up": [16] * 6, "q": [256]}
    for tensor in found.values():
        assert torch.equal(torch.cat([*tensor.blocks(torch.bfloat16)]), tensor.read(torch.bfloat16).flatten())


def test_tensors_of_other_shapes_are_read_whole(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package.fields["general.architecture"] = "gpt2"  # whose linear layers are the other way round in the file
    monkeypatch.setattr(gguf, "BLOCK_ELEMENTS", 20)
    up = read(model())["up"]
    assert up.shape == (8, 12)
    assert torch.equal(up.read(torch.float32), torch.arange(96).view(12, 8).T / 2)
    [block] = up.blocks(torch.float32)
    assert torch.equal(block, up.read(torch.float32).flatten())


def test_what_is_not_read(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package.entries.append(entry("blk.0.nextn.weight", 4))
    with pytest.raises(
        SourceError, match=r"x.gguf has blk.0.nextn.weight, which LlamaForCausalLM has no place for: give"
    ):
        read(model())
    del package.entries[-1]
    package.fields["general.architecture"] = "t5"
    with pytest.raises(SourceError, match=r"x.gguf is of t5, whose tensors lie otherwise in GGUF: transf"):
        read(model())
    package.fields["general.architecture"] = "llama"
    monkeypatch.setattr(modeling_gguf_pytorch_utils, "get_gguf_hf_weights_map", lambda *_: {}["x"])
    with pytest.raises(SourceError, match=r"cannot read x.gguf: KeyError"):
        read(model())

    def refusing(*_: Any) -> Any:
        raise NotImplementedError("not yet")

    package.dequantize = refusing
    monkeypatch.setattr(modeling_gguf_pytorch_utils, "get_gguf_hf_weights_map", lambda *_: {})
    with pytest.raises(SourceError, match=r"has rope_freqs.weight as Q8_0, which the package gguf does not dequantize"):
        read(model())


def test_the_parts_of_a_file_are_one(tmp_path: Path, package: Any) -> None:
    first, second = (tmp_path / f"x-0000{i}-of-00002.gguf" for i in (1, 2))
    parts = {first: package.entries[:1], second: package.entries[1:2]}
    package.GGUFReader = lambda path: SimpleNamespace(tensors=parts[path], fields=package.fields)
    first.touch()
    with pytest.raises(
        SourceError, match=r"is one of 2 files, of which x-00002-of-00002.gguf is not here; fetch it, too"
    ):
        GgufFile.open(first)
    second.touch()
    opened = GgufFile.open(second)
    assert (opened.path, [*opened.entries]) == (first, ["blk.0.ffn_up.weight", "blk.0.attn_q.weight"])
    assert model_folder(tmp_path) == first


def test_experts_are_joined(package: Any) -> None:
    names = ("gate", "up", "down")
    package.entries[:] = [entry(f"blk.0.ffn_{name}_exps.weight", 2, 3, 4) for name in names]
    for kind, in_turn in {"qwen3_moe": False, "gpt_oss": True}.items():
        gate, shape = torch.arange(24.0).view(2, 3, 4) / 2, (2, 6, 4)
        joined = torch.stack([gate, gate], 2).view(shape) if in_turn else torch.cat([gate, gate], 1)
        both, down = (joined.mT, gate.mT) if in_turn else (joined, gate)
        made = nn.Module()
        experts: Any = nn.Module()
        experts.gate_up_proj, experts.down_proj = nn.Parameter(both), nn.Parameter(down)
        for name in ("experts", "mlp", "0", "layers"):
            outer = nn.Module()
            outer.add_module(name, made if name != "experts" else experts)
            made = outer
        made.config = t.PretrainedConfig(model_type=kind)  # type: ignore[assignment]
        made.config.model_type = kind  # type: ignore[union-attr]
        found = read(made)
        for name, expected in {"gate_up_proj": both, "down_proj": down}.items():
            tensor = found[f"layers.0.mlp.experts.{name}"]
            assert (tensor.shape, tensor.dtype) == (tuple(expected.shape), torch.float32)
            assert torch.equal(tensor.read(torch.float32), expected)
            assert torch.equal(torch.cat([*tensor.blocks(torch.float32)]), expected.flatten())


def test_groups_of_falcon_are_put_together() -> None:
    sizes = {"num_attention_heads": 4, "num_kv_heads": 2, "hidden_size": 8, "multi_query": False}
    processor = FalconProcessor({**sizes, "new_decoder_architecture": True})
    kinds = np.array([*"qqqqqqqq", *"kkkk", *"vvvv"])
    found = processor.process(np.arange(16.0).astype(np.float32)[:, None], "blk.0.attn_qkv.weight").weights
    assert "".join(kinds[found[:, 0].astype(int)]) == "qqqqkkvv" * 2
    one = FalconProcessor({**sizes, "multi_query": True, "new_decoder_architecture": False})
    assert one.process(kinds, "blk.0.attn_qkv.weight").weights is kinds


def test_adapters_of_a_file_are_kept_where_rows_are_to_choose(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"base_model.model.x.lora_A.weight": torch.ones(8, 2)}, tmp_path / "lora/adapter_model.safetensors")
    config, seen = t.LlamaConfig(**SMALL), list[Adapter]()
    monkeypatch.setattr(checkpoint_folder, "gguf_model", lambda *_: (config, t.LlamaForCausalLM, ()))
    monkeypatch.setattr(Checkpoint, "for_model", lambda self, _: seen.extend(self.adapters) or {})
    read_source(str(tmp_path), Reading(adapters=(tmp_path / "lora",), keep_adapters=True))
    assert [adapter.kept for adapter in seen] == [True]


def test_a_file_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    message = "x.gguf is a GGUF file, and gguf is not installed; pip install 'stagecut[gguf]'"
    for source in (tmp_path, tmp_path / "x.gguf"):
        with pytest.raises(SourceError, match=re.escape(message)):
            read_source(str(source))


def test_a_file_that_is_damaged(tmp_path: Path, package: Any) -> None:
    (tmp_path / "x.gguf").write_text("no GGUF")
    with pytest.raises(SourceError, match=r"x.gguf holds no decoder that transformers reads: .*" + ADDED):
        read_source(str(tmp_path))
    package.GGUFReader = lambda path: {}["magic"]
    with pytest.raises(SourceError, match=r"cannot read .*x.gguf: KeyError"):
        read_source(str(tmp_path))


def test_what_lies_beside_a_file_belongs_to_it(tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    config = t.LlamaConfig(**SMALL)
    monkeypatch.setattr(checkpoint_folder, "gguf_model", lambda *_: (config, t.LlamaForCausalLM, ()))
    source = read_source(str(tmp_path / "x.gguf"), Reading(generate=True, weights=False))
    assert source.tokenizer == (tmp_path / "tokenizer.json",)
    assert getattr(source.model.generation_config, "eos_token_id", None) == 7


def test_a_folder_may_be_named_like_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "x.gguf"
    folder.mkdir()
    with pytest.raises(SourceError, match=r"x.gguf is empty; fetch a checkpoint into it"):
        read_source(str(folder))
    t.LlamaConfig(**SMALL, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    assert isinstance(read_source(str(folder), Reading(weights=False)).model, t.LlamaForCausalLM)
