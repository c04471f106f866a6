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
from ir.checkpoint.formats import gguf
from ir.errors import SourceError
from ir.sources import Reading, checkpoint_folder, read_source

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
SMALL: dict[str, Any] = {**SIZES, "vocab_size": 96}
FIELDS = {"general.architecture": ["llama"], "split.count": []}


def halves(rows: Any, _: Any) -> Any:
    """The numbers of a made-up format: bytes, of which each is two."""
    return rows.astype(np.float32) / 2


def entry(name: str, *shape: int) -> Any:
    data = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return SimpleNamespace(name=name, shape=shape[::-1], data=data, tensor_type=SimpleNamespace(name="Q8_0"))


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stand-in for the package, and for transformers' reading of a file's fields and names."""
    entries = [entry("blk.0.ffn_up.weight", 12, 8), entry("blk.0.attn_q.weight", 32, 8), entry("rope_freqs.weight", 4)]
    fields = SimpleNamespace(**{name.replace(".", "_"): value for name, value in FIELDS.items()})
    made = SimpleNamespace(GGUFReader=lambda _: SimpleNamespace(tensors=entries), dequantize=halves, fields=fields)
    library: Any = modeling_gguf_pytorch_utils
    names = {"blk.0.ffn_up.weight": "up", "blk.0.attn_q.weight": "q"}
    monkeypatch.setitem(sys.modules, "gguf", made)
    monkeypatch.setattr(library, "read_field", lambda _, name: getattr(fields, name.replace(".", "_")))
    monkeypatch.setattr(library, "get_gguf_hf_weights_map", lambda *_: names)
    return made


def model() -> nn.Module:
    with torch.device("meta"):
        return t.LlamaForCausalLM(t.LlamaConfig(**SMALL))


def test_tensors_are_read_under_the_names_of_the_model(package: Any) -> None:
    found = gguf.gguf_tensors(Path("x.gguf"), model())
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()} == {
        "up": ((12, 8), torch.float32),
        "q": ((32, 8), torch.float32),
    }
    assert torch.equal(found["up"].read(torch.float32), torch.arange(96).view(12, 8) / 2)
    pairs = found["q"].read(torch.float32).view(4, 2, 4, 8)  # of each head, rows lie in pairs in the file
    assert torch.equal(pairs.transpose(1, 2).reshape(32, 8), torch.arange(256).view(32, 8) / 2)


def test_blocks_are_rows_but_where_rows_change_places(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "BLOCK_ELEMENTS", 20)
    found = gguf.gguf_tensors(Path("x.gguf"), model())
    sizes = {name: [len(block) for block in tensor.blocks(torch.bfloat16)] for name, tensor in found.items()}
    assert sizes == {"up": [16] * 6, "q": [256]}
    for tensor in found.values():
        assert torch.equal(torch.cat([*tensor.blocks(torch.bfloat16)]), tensor.read(torch.bfloat16).flatten())


def test_tensors_of_other_shapes_are_read_whole(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package.fields.general_architecture = ["gpt2"]  # whose linear layers are the other way round in the file
    monkeypatch.setattr(gguf, "BLOCK_ELEMENTS", 20)
    up = gguf.gguf_tensors(Path("x.gguf"), model())["up"]
    assert up.shape == (8, 12)
    assert torch.equal(up.read(torch.float32), torch.arange(96).view(12, 8).T / 2)
    [block] = up.blocks(torch.float32)
    assert torch.equal(block, up.read(torch.float32).flatten())


def test_what_is_not_read(package: Any) -> None:
    package.fields.split_count = [2]
    with pytest.raises(SourceError, match=r"x.gguf is one of 2 files; llama-gguf-split --merge makes one of them"):
        gguf.gguf_tensors(Path("x.gguf"), model())
    package.fields.split_count, package.fields.general_architecture = [], ["qwen2moe"]
    with pytest.raises(SourceError, match=r"x.gguf is of qwen2moe, whose tensors lie otherwise in GGUF: transf"):
        gguf.gguf_tensors(Path("x.gguf"), model())
    package.fields.general_architecture = []
    with pytest.raises(SourceError, match=r"cannot read x.gguf: IndexError"):
        gguf.gguf_tensors(Path("x.gguf"), model())


def test_adapters_of_a_file_are_kept_where_rows_are_to_choose(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"base_model.model.x.lora_A.weight": torch.ones(8, 2)}, tmp_path / "lora/adapter_model.safetensors")
    config, seen = t.LlamaConfig(**SMALL), list[Adapter]()
    monkeypatch.setattr(checkpoint_folder, "_gguf_model", lambda *_: (config, t.LlamaForCausalLM, ()))
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
    with pytest.raises(SourceError, match=r"x.gguf holds no decoder that transformers reads: "):
        read_source(str(tmp_path))


def test_what_lies_beside_a_file_belongs_to_it(tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.gguf").touch()
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    config = t.LlamaConfig(**SMALL)
    monkeypatch.setattr(checkpoint_folder, "_gguf_model", lambda *_: (config, t.LlamaForCausalLM, ()))
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
