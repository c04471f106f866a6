"""A long stream of random sizes through four stages, and many texts: every output right, and memory flat."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from passes.compilation.api import compile_model
from runtime import Pipeline
from runtime.manifest.manifest import Symbol
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.running.memory import held_memory

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
    settled = (0, 0)
    with Pipeline.load(artifact(tmp_path)) as pipe:
        for i, (x, y) in enumerate(zip(batches(), pipe.map(batches(), in_flight=8), strict=True)):
            assert y.shape == x.shape
            assert y[0, 0, 0] == y[-1, -1, -1] == abs(x[0, 0, 0] + 1) * 2 - x[0, 0, 0]
            if i == SETTLED:
                settled = held_memory()
        more_bytes, more_blocks = (now - then for now, then in zip(held_memory(), settled, strict=True))
    assert more_bytes < BATCHES * 100  # the smallest tensor has 64 of them, most have thousands
    assert more_blocks < BATCHES // 2


TEXTS, NEW = 200, 50


def prompts() -> Iterator[list[int]]:
    lengths = random.Random(0)
    for _ in range(TEXTS):
        yield [lengths.randint(1, 255) for _ in range(lengths.randint(1, 60))]


@pytest.mark.slow
def test_ten_thousand_tokens_in_two_hundred_texts(tmp_path: Path) -> None:
    """Room for six texts, so that some wait, and give their pages up."""
    example = Path(__file__).parents[3] / "examples" / "own_decoder.py"
    compile_model(example, out=tmp_path / "out", stages=2, generate=True, sequences=3, progress=False)
    alone: list[list[int]] = []
    with Pipeline.load(tmp_path / "out", processes=False) as pipe:
        alone = [pipe.generate(p, max_new_tokens=NEW, eos_token_id=[]) for p in list(prompts())[:3]]
        texts = deque(pipe.start(p, max_new_tokens=NEW, eos_token_id=[]) for p in prompts())
        settled, found = 0, list[list[int]]()
        for i in range(TEXTS):
            found.append(texts.popleft().result())
            if i == TEXTS // 5:
                settled, _ = held_memory()
        grown = held_memory()[0] - settled
        pools = pipe._texts()._generator._scheduler.pools
        assert pools.full.free == pools.full.count - 1
    print(
        f"\n{sum(map(len, found)):,} tokens in {TEXTS} texts: {grown:,} bytes more are held than after the first fifth"
    )
    assert [len(text) for text in found] == [NEW] * TEXTS
    assert found[:3] == alone
    assert grown < TEXTS * NEW * 300  # bytes: a tensor of one number takes 390
