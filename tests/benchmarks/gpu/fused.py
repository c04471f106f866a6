"""Kernels of pointwise operators: `python3 -m tests.benchmarks.gpu.fused bits`, and `stages` for their time.

`bits` compares each operator with torch's own kernel, bit for bit.  `stages` takes the time of the first stage of the
model of `tests.benchmarks.gpu.llama` with these kernels and with torch's, launched one by one and as a CUDA graph.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from ir.fused.checked_bits import drawn_like, same_bits
from ir.fused.fused_kernel import fused_kernel
from runtime.stage.loader import import_file
from tests.benchmarks.gpu import llama
from tests.benchmarks.gpu.throughput import prepare
from tests.support.kernels.fused_functions import FUNCTIONS, cases, compiled_for, tensors

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SHAPES = ((4, 512), (1, 512), (2, 130), (8, 1))  # batch, tokens
ROUNDS = 20


@torch.inference_mode()
def compare_bits() -> None:
    """Print each function that has other bits than torch's kernels, or has no kernel, by layout and dtype."""
    count = 0
    for name, layout, dtype in cases(DTYPES):
        function = fused_kernel(FUNCTIONS[name])
        given = tensors(name, layout, dtype, "cuda")
        launch = compiled_for(function, given)
        for some in (given, *drawn_like(given, "cuda")):
            found, expected = as_tuple(function(*some)), as_tuple(FUNCTIONS[name](*some))
            if not same_bits(found, expected):
                print(f"{name}, {layout}, {dtype}: other bits", flush=True)
        if launch is FUNCTIONS[name]:
            print(f"{name}, {layout}, {dtype}: no kernel", flush=True)
        count += launch is not FUNCTIONS[name]
    print(f"{count} kernels for {len(cases(DTYPES))} cases")


def as_tuple(made: Any) -> tuple[torch.Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)


def compare_stages() -> None:
    """Print the milliseconds of a stage with these kernels, and with torch's."""
    if not (llama.STAGES / "manifest.json").exists():
        prepare()
    helper = import_file(llama.STAGES / "fused_kernel.py")
    module = import_file(llama.STAGES / "stage_0.py", {"fused_kernel": helper})
    kernels = {name: f for name, f in vars(module).items() if hasattr(f, "launches")}
    with torch.device("meta"):
        stage = module.Stage0()
    stage = stage.to_empty(device="cuda").eval()
    for parameter in stage.parameters():
        parameter.data.normal_(std=0.02)
    for buffer in stage.buffers():
        buffer.uniform_()
    with torch.inference_mode():
        for batch, seq in SHAPES:
            ids = llama.ids(batch)[:, :seq].to("cuda")
            compare_stage(module, kernels, helper.finish_kernels, lambda ids=ids: stage(ids), f"{batch} x {seq}")


def compare_stage(
    module: ModuleType, kernels: dict[str, Any], finish: Callable[[], None], run: Callable[[], Any], what: str
) -> None:
    taken, made = [], []
    for ours in (False, True):
        for name, kernel in kernels.items():
            setattr(module, name, kernel if ours else kernel.__wrapped__)
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        first = time.perf_counter() - started
        finish()
        made.append(run()[0])
        taken.append(f"{launched(run):.2f} ms launched, {recorded_once(run):.2f} ms recorded, the first {first:.2f} s")
    print(f"{what}: {' | '.join(taken)}, the same bits: {torch.equal(*made)}", flush=True)


def launched(run: Callable[[], Any]) -> float:
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(ROUNDS):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / ROUNDS * 1e3


def recorded_once(run: Callable[[], Any]) -> float:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return launched(graph.replay)


if __name__ == "__main__":
    {"bits": compare_bits, "stages": compare_stages}[sys.argv[1]]()
