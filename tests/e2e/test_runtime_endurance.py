"""A long stream of random sizes through four stages: every output right and in order, and memory flat."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from runtime import Pipeline
from runtime.manifest.manifest import Symbol
from tests.support.artifacts import Part, tensor, write

BATCHES, SETTLED = 10_000, 1_000


def artifact(folder: Path) -> Path:
    """y = |x + 1| * 2 - x over sequences, with a skip from the first stage to the last."""
    parts = [
        Part("return x + 1, -x", {"x": None}, {"a": ((1,), ()), "s": ((3,), ())}),
        Part("return (a.abs(),)", {"a": 0}, {"b": ((2,), ())}),
        Part("return (b * 2,)", {"b": 1}, {"c": ((3,), ())}),
        Part("return (c + s,)", {"c": 2, "s": 0}, {"y": ((), (0,))}),
    ]
    shape = ("batch", "seq", 16)
    symbols = {"batch": Symbol(1, 8, 2), "seq": Symbol(1, 128, 2)}
    return write(folder, parts, inputs=[tensor("x", *shape)], outputs=[tensor("y", *shape)], symbols=symbols)


def batches() -> Iterator[torch.Tensor]:
    sizes = random.Random(0)
    for i in range(BATCHES):
        yield torch.full((sizes.randint(1, 8), sizes.randint(1, 128), 16), float(i - BATCHES // 2))


@pytest.mark.slow
def test_ten_thousand_batches(tmp_path: Path) -> None:
    process, settled = psutil.Process(), 0
    with Pipeline.load(artifact(tmp_path)) as pipe:
        for i, (x, y) in enumerate(zip(batches(), pipe.map(batches(), in_flight=8), strict=True)):
            assert y.shape == x.shape
            assert y[0, 0, 0] == y[-1, -1, -1] == abs(x[0, 0, 0] + 1) * 2 - x[0, 0, 0]
            if i == SETTLED:
                gc.collect()
                settled = process.memory_info().rss
        gc.collect()
        grown = process.memory_info().rss / settled - 1
    assert grown < 0.01
