"""A stage file beside the module that it was made from: the time of a call, and of torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import pytest
import torch
from torch import nn
from torch._inductor.utils import fresh_inductor_cache
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

from passes.api import compile_model
from runtime.loader import _import_file

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXT = {"input_ids": {0: "batch", 1: "seq"}}
CALLS = 20


def llama(layers: int, width: int = 512) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=4,
            vocab_size=4000,
            use_cache=False,
        )
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor], dict[str, Any]]] = {
    "GPT-2": (lambda: GPT2LMHeadModel(GPT2Config(use_cache=False)), lambda: torch.randint(1000, (1, 64)), TEXT),
    "ResNet-50": (
        lambda: ResNetForImageClassification(ResNetConfig()),
        lambda: torch.randn(1, 3, 224, 224),
        {"pixel_values": {0: "batch"}},
    ),
    "Llama-like": (lambda: llama(8), lambda: torch.randint(1000, (1, 64)), TEXT),
}


def stage_of(model: nn.Module, x: torch.Tensor, dynamic: dict[str, Any], out: Path) -> nn.Module:
    compile_model(model, (x,), out=out, stages=1, dynamic_shapes=dynamic)
    return _import_file(out / "stage_0.py").Stage0.load(out / "stage_0.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_a_call_takes_no_longer_than_the_models(name: str, tmp_path: Path) -> None:
    """CPU time of one thread, in turns, the least of each: 1.00 to 1.05 times the module's."""
    make, example, dynamic = MODELS[name]
    model, x = make().eval(), example()
    stage = stage_of(model, x, dynamic, tmp_path / "out")
    with torch.no_grad():
        times = [(least(model, x), least(stage, x)) for _ in range(CALLS)]
    eager, staged = (min(t) for t in zip(*times, strict=True))
    print(f"\n{name}: module {1e3 * eager:.1f} ms, stage {1e3 * staged:.1f} ms, {staged / eager:.3f} times")
    assert staged <= 1.05 * eager


def least(module: nn.Module, x: torch.Tensor) -> float:
    start = thread_time()
    module(x)
    return thread_time() - start


def test_compiling_many_equal_layers_costs_little_more_than_two(tmp_path: Path) -> None:
    """torch.compile of a stage of 20 equal layers takes at most twice as long as of one with 2."""
    compile_time(llama(2, 64), tmp_path / "warm")  # the first one starts torch's compiler
    few, many = (compile_time(llama(n, 64), tmp_path / str(n)) for n in (2, 20))
    print(f"\n2 layers {few:.1f} s, 20 layers {many:.1f} s, {many / few:.2f} times")
    assert many <= 2 * few


def compile_time(model: nn.Module, out: Path) -> float:
    x = torch.randint(1000, (2, 16))
    stage = stage_of(model.eval(), x, TEXT, out)
    torch._dynamo.reset()
    with torch.no_grad(), fresh_inductor_cache():
        start = perf_counter()
        compiled = torch.compile(stage)(x)
        seconds = perf_counter() - start
        assert_near(compiled, stage(x))
    return seconds


def assert_near(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
