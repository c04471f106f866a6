"""The host's time of a decoder's step, over stand-ins for graphs that compute nothing.

`pytest tests/benchmarks/running/test_step_host.py -s` prints CPU seconds of all threads a step, the waits for a
device that takes two milliseconds included, and calls of Python.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.support.artifacts.stand_in_graphs import StandInDevice, stand_in_graphs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ASKED = {1: 0.3, 32: 0.6}  # milliseconds of the host's CPU a step, by the number of texts
PROMPT, NEW, TURNS = 1000, 300, 3
SECONDS = 0.002  # of a step on the device


@pytest.fixture(scope="module")
def device() -> Iterator[StandInDevice]:
    with stand_in_graphs(StandInDevice(SECONDS, computes=False)) as device:
        yield device


@pytest.fixture(scope="module")
def pipe(device: StandInDevice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 512}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048}
    config: Any = LlamaConfig(**sizes, **heads, eos_token_id=None, bos_token_id=None)  # pyright: ignore[reportArgumentType]
    out = tmp_path_factory.mktemp("decoder") / "out"
    compile_model(LlamaForCausalLM(config).eval(), out=out, stages=1, generate=True, max_length=2048)
    with Pipeline.load(out, processes=False) as pipe:
        for turn in (1, 2):
            for rows in ASKED:
                taken(pipe, rows, 40, turn)
        yield pipe


def prompt(number: int) -> list[int]:
    draw = random.Random(number)
    return [draw.randrange(3, 512) for _ in range(PROMPT)]


def taken(pipe: Pipeline, rows: int, new: int, turn: int) -> float:
    """CPU milliseconds of a step, once all texts have begun and until the first one ends."""
    begun = [pipe.start(prompt(1000 * turn + 100 * rows + row), max_new_tokens=new) for row in range(rows)]
    for one in begun:
        next(iter(one))
    first, cpu = len(begun[0].steps), time.process_time()
    begun[0].result()
    cpu = time.process_time() - cpu
    for one in begun:
        one.result()
    return 1e3 * cpu / (new - first)


def calls(pipe: Pipeline, rows: int) -> float:
    """Calls of Python and of C in a step, on all threads that begin in it: the one that orders steps."""
    counted: Counter[str] = Counter()
    threading.setprofile(lambda frame, event, argument: counted.update([event]))
    try:
        taken(pipe, rows, NEW, 9)
    finally:
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]
        sys.setprofile(None)
    return (counted["call"] + counted["c_call"]) / NEW


@pytest.mark.parametrize("rows", ASKED)
def test_host_time_of_a_step(pipe: Pipeline, device: StandInDevice, rows: int) -> None:
    best, replays = min(taken(pipe, rows, NEW, 10 + turn) for turn in range(TURNS)), device.replays
    number = calls(pipe, rows)
    assert device.replays - replays >= NEW - rows
    print(f"\n{rows} texts: {best:.2f} ms of CPU a step (asked {ASKED[rows]}), {number:.0f} calls")
