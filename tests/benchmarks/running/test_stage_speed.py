"""A stage file beside the module that it was made from: the time of a call, and of torch.compile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import thread_time
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

from passes.compilation.api import compile_model
from runtime.stage.loader import import_file
from tests.benchmarks.report import Table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXT = {"input_ids": {0: "batch", 1: "seq"}}
CALLS = 40
MOST = 1.05  # times the module's time


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
    return import_file(out / "stage_0.py").Stage0.load(out / "stage_0.safetensors")


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    columns = ("model", "asked", "measured", "module", "stage")
    complete = len(MODELS) + 1
    table = Table("stage-speed", "pytest tests/benchmarks/running/test_stage_speed.py -s", columns, complete=complete)
    yield table
    table.publish()


@pytest.mark.parametrize("name", MODELS)
def test_a_call_takes_no_longer_than_the_models(name: str, table: Table, tmp_path: Path) -> None:
    make, example, dynamic = MODELS[name]
    model, x = make().eval(), example()
    stage = stage_of(model, x, dynamic, tmp_path / "out")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratio, eager, staged = side_by_side(model, stage, x)
    finally:
        torch.set_num_threads(threads)
    table.add(name, f"≤ {MOST:.2f}", f"{ratio:.3f}", f"{1e3 * eager:.1f} ms", f"{1e3 * staged:.1f} ms")
    assert ratio <= MOST


def side_by_side(model: nn.Module, stage: nn.Module, x: torch.Tensor) -> tuple[float, float, float]:
    """How many times the module's time a stage takes, and the median of each (s of one thread's CPU time).

    Calls go module, stage, module, stage, …; each pair of neighbours gives a ratio, of which the median counts: what
    else the machine does meanwhile slows both, and a call that was disturbed alone is an outlier.
    """
    with torch.no_grad():
        times = [seconds(module, x) for _ in range(CALLS) for module in (model, stage)][2:]  # without the first two
    ratios = [b / a if i % 2 == 0 else a / b for i, (a, b) in enumerate(pairwise(times))]
    return median(ratios), median(times[::2]), median(times[1::2])


def seconds(module: nn.Module, x: torch.Tensor) -> float:
    start = thread_time()
    module(x)
    return thread_time() - start


def test_compiling_many_equal_layers_costs_little_more_than_two(table: Table, tmp_path: Path) -> None:
    """torch.compile of a stage of 20 equal layers takes at most twice as long as of one with 2."""
    compile_time(llama(2, 64), tmp_path / "warm")  # the first one starts torch's compiler
    few, many = (compile_time(llama(n, 64), tmp_path / str(n)) for n in (2, 20))
    asked, measured = "≤ 2.00", f"{many / few:.2f}"
    table.add("torch.compile of 20 layers, beside 2", asked, measured, f"{few:.1f} s (2)", f"{many:.1f} s (20)")
    assert many <= 2 * few


def compile_time(model: nn.Module, out: Path) -> float:
    x = torch.randint(1000, (2, 16))
    stage = stage_of(model.eval(), x, TEXT, out)
    torch._dynamo.reset()
    with torch.no_grad(), fresh_inductor_cache(), torch._inductor.config.patch(compile_threads=1):
        start = cpu_seconds()
        compiled = torch.compile(stage)(x)
        taken = cpu_seconds() - start
        assert_near(compiled, stage(x))
    return taken


def cpu_seconds() -> float:
    """What this process and the C++ compilers that it started have computed: on a busy machine more passes by."""
    return sum(os.times()[:4])


def assert_near(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
