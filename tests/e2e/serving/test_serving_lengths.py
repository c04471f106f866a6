"""Texts of different lengths in one batch of a real encoder: each gets what it gets alone, but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel

from runtime import Pipeline
from runtime.manifest.manifest import Manifest
from runtime.serving.batching import Batching
from runtime.serving.engines.tensors import array_of, tensor_of
from stagecut import compile_model

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def texts(*lengths: int) -> list[dict[str, torch.Tensor]]:
    ids = [torch.randint(0, 50, (1, length)) for length in lengths]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in ids]


def test_texts_of_different_lengths_share_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZES, max_position_embeddings=32)).eval()
    [example] = texts(8)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("seq", max=32)}
    compile_model(model, kwargs=example, dynamic_shapes=dict.fromkeys(example, sizes), stages=2, out=tmp_path / "bert")
    batching = Batching.of(Manifest.read(tmp_path / "bert").programs)
    asked = texts(5, 8, 1, 7)
    parts = [{name: array_of(tensor) for name, tensor in text.items()} for text in asked]
    assert len({batching.key(part) for part in parts}) == 1
    with Pipeline.load(tmp_path / "bert") as pipe:
        inputs = {name: tensor_of(array) for name, array in batching.joined(parts).items()}
        outputs = {name: array_of(tensor) for name, tensor in pipe.run_named(inputs).items()}
        for text, got in zip(asked, batching.split(outputs, parts), strict=True):
            for name, alone in pipe.run_named(text).items():
                torch.testing.assert_close(tensor_of(got[name]), alone)
        last = "last_hidden_state[:, -1]"
        shared = pipe.submit_shared(inputs, [last], batching.sizes(parts)).result()
        for text, got in zip(asked, shared, strict=True):
            torch.testing.assert_close(got[last], pipe.run_named(text, outputs=[last])[last])
            torch.testing.assert_close(got[last], pipe.run_named(text)["last_hidden_state"][:, -1])
