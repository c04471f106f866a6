"""The batches that are measured, and the time that a run of them takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks.gpu import llama

BATCH = 4
STREAM = 64  # batches
LENGTHS = [64 + 61 * i % 449 for i in range(64)]  # tokens of a batch, none twice in a row
Measured = dict[str, float]


def tokens(batches: float) -> float:
    return batches * BATCH * llama.SEQ


def seconds(run: Callable[[], Any]) -> float:
    """From when the GPUs of this process are idle until they are again."""
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def synchronize() -> None:
    """Under torchrun a process has one GPU: to wait for another would set that up first."""
    for i in [torch.cuda.current_device()] if "RANK" in os.environ else range(torch.cuda.device_count()):
        torch.cuda.synchronize(i)
