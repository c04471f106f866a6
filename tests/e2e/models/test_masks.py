"""Decoders called without an attention mask: the mask that transformers writes out is causal attention again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from ir.capture import DynamicShapes, capture
from ir.text.printer import print_graph
from passes.fusing.simplify_masks import SimplifyMasks
from tests.support.checking import Call, assert_same, check_artifact, run_graph, run_model
from tests.support.models.planning import machine, slow_machine

pytestmark = pytest.mark.slow

WINDOW = 6
SIZES: dict[str, Any] = dict(hidden_size=32, intermediate_size=64, num_attention_heads=4, vocab_size=64)


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, num_key_value_heads=2))


def mistral() -> nn.Module:
    sizes: dict[str, Any] = dict(num_hidden_layers=2, num_key_value_heads=2, sliding_window=WINDOW, use_cache=False)
    return MistralForCausalLM(MistralConfig(**SIZES, **sizes))


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, bos_token_id=1, eos_token_id=2))


def calls(*sizes: tuple[int, int]) -> list[Call]:
    return [Call.of(input_ids=torch.randint(64, size)) for size in sizes]


def shapes(seq: Any) -> DynamicShapes:
    return {"input_ids": {0: "batch", 1: seq}}


@pytest.mark.parametrize(
    ("make", "seq", "simple"),
    [(llama, "seq", True), (gpt2, "seq", True), (mistral, Dim("seq", max=WINDOW), True), (mistral, "seq", False)],
)
def test_a_decoder_without_an_attention_mask(make: Any, seq: Any, simple: bool) -> None:
    """Where a window is longer than any text, the mask is causal, too."""
    model, runs = make().eval(), calls((2, 5), (3, 1), (1, 4), (1, 1), (2, WINDOW if seq != "seq" else 40))
    graph = capture(model, (), runs[0].kwargs, dynamic_shapes=shapes(seq))
    simpler = SimplifyMasks().run(graph, machine(1))
    text = print_graph(simpler)
    assert ("is_causal=True" in text, "bool[" in text) == (simple, not simple)
    for want, found in zip(run_model(model, runs), run_graph(simpler, runs, model.state_dict()), strict=True):
        assert_same(want, found)


def test_its_stages(tmp_path: Path) -> None:
    """Those for GPUs, where in half precision heads of queries share keys and values, too."""
    model, gpus = llama().eval().bfloat16(), slow_machine(2, name="cuda")
    check_artifact(model, calls((2, 5), (1, 1), (3, 40)), tmp_path / "out", shapes("seq"), gpus)
    for stage in range(2):
        text = (tmp_path / "out" / f"stage_{stage}.py").read_text()
        assert "is_causal=True" in text
        assert "enable_gqa=True" in text
        assert "mask" not in text
        assert "expand(batch, 2, 2" not in text
