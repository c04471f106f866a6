"""Stages for GPUs that launch pointwise operators as one kernel: their files, run on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.check.artifact import faults
from tests.support.seeds import made_once

pytestmark = pytest.mark.slow
SIZES: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 100}
IDS = torch.arange(24).view(2, 12)


@made_once
def llama() -> nn.Module:
    config = LlamaConfig(**SIZES, num_attention_heads=8, num_key_value_heads=2, use_cache=False)
    return LlamaForCausalLM(config).eval().bfloat16()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kernels") / "out"
    sizes = {"input_ids": {0: "batch", 1: "seq"}}
    compile_model(llama(), (), {"input_ids": IDS}, out=out, cluster="h200x2", dynamic_shapes=sizes, progress=False)
    return out


def test_layers_share_the_functions_of_kernels(artifact: Path) -> None:
    for stage in ("stage_0.py", "stage_1.py"):
        text = (artifact / stage).read_text()
        assert text.count("@fused_kernel") == 3
        assert "    return normalized(hidden_states, self.weight)\n" in text
        assert "def rotated(query_states, cos, sin):\n" in text
        assert "def gated(gate_proj, up_proj):\n    return F.silu(gate_proj) * up_proj\n" in text
    assert (artifact / "fused_kernel.py").is_file()
    assert [*faults(artifact)] == []


def test_stages_compute_what_the_model_does(artifact: Path) -> None:
    with Pipeline.load(artifact, "cpu", processes=False) as pipe, torch.no_grad():
        assert torch.equal(pipe(input_ids=IDS).logits, llama()(IDS).logits)
