"""Texts that decoders continue on CUDA devices, beside the same artifact on the CPU."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.support.running.jobs import run

pytestmark = pytest.mark.gpu

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512}
HEADS: dict[str, Any] = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
STATES: dict[str, Any] = {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}
MODELS = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SIZES, **HEADS)),
    "window": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**SIZES, **HEADS, sliding_window=6)),
    "states": lambda: t.Lfm2ForCausalLM(t.Lfm2Config(**SIZES, **HEADS, **STATES)),
}
WAYS: list[dict[str, Any]] = [{}, {"processes": False}, {"processes": True}, {"processes": False, "compile": True}]
LENGTHS = (2, 11, 5, 40, 1, 7, 30, 3, 23)


@pytest.fixture(scope="module", params=MODELS)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    model.generation_config.eos_token_id = None
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=0.15)  # so that logits are apart
    out = tmp_path_factory.mktemp(request.param) / "out"
    devices = [f"cuda:{i}" for i in range(min(torch.cuda.device_count(), 2))]
    compile_model(model, out=out, devices=devices, generate=True, max_length=96, sequences=9, page=8)
    return out


def texts(pipe: Pipeline, seed: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(1, 511, (n,), generator=draw).tolist() for n in LENGTHS]
    begun = [pipe.start(prompt, max_new_tokens=20 + 5 * i, temperature=0.0) for i, prompt in enumerate(prompts)]
    return [one.result(timeout=120) for one in begun]


@pytest.fixture(scope="module")
def wanted(artifact: Path) -> list[list[list[int]]]:
    with Pipeline.load(artifact, "cpu", processes=False) as pipe:
        return [texts(pipe, seed) for seed in range(3)]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_texts_are_those_of_the_cpu(artifact: Path, wanted: list[list[list[int]]], way: dict[str, Any]) -> None:
    with Pipeline.load(artifact, **way) as pipe:
        assert [texts(pipe, seed) for seed in range(3)] == wanted


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_texts_of_a_job_are_those_of_the_cpu(artifact: Path, wanted: list[list[list[int]]], tmp_path: Path) -> None:
    """Tokens go from the last process to the first on the devices, while the host orders further steps."""
    (tmp_path / "out").symlink_to(artifact)
    script = f"""\
import json
LENGTHS = {LENGTHS}
{inspect.getsource(texts)}
with Pipeline.distributed(OUT, timeout=60) as pipe:
    if RANK == 0:
        print(json.dumps([texts(pipe, seed) for seed in range(3)]))
"""
    ended = run(tmp_path, script, ranks=2)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out.splitlines()[-1]) == wanted
