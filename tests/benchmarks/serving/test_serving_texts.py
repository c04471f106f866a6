"""A served decoder: from a checkpoint folder to the first answer, and the first token of a stream beside a prefill."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import transformers as t

from ir.process.cache_folder import PLACE
from runtime import Pipeline
from tests.support.running.serving import serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT, NEW, TURNS, CLIENTS = 200, 16, 12, 4
FLAGS = ("--stages", "2", "--generate", "--max-length", "256", "-q")
ASKED = 20.0, 1.2  # seconds to the first answer; times a prefill until the first token


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A Llama of 32 million parameters, and its folder."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "vocab_size": 8000}
    heads: dict[str, Any] = {"num_attention_heads": 8, "max_position_embeddings": 512}
    made = t.LlamaForCausalLM(t.LlamaConfig(**sizes, **heads, eos_token_id=None)).eval()
    folder = tmp_path_factory.mktemp("checkpoints") / "llama"
    made.save_pretrained(folder)
    return made, folder


def prompt(turn: int) -> list[int]:
    """Another one each turn, or pages of its prefix would be known."""
    return torch.randint(3, 8000, (PROMPT,), generator=torch.Generator().manual_seed(turn)).tolist()


def streamed(url: str, ids: list[int]) -> tuple[float, list[int]]:
    """Seconds until the first token of a stream, and all of its ids."""
    body = {"prompt": ids, "max_tokens": NEW, "temperature": 0, "stream": True}
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)) as connection:
        began, first, found = time.perf_counter(), 0.0, []
        connection.request("POST", "/v1/completions", json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200
        for line in answer:
            if line.startswith(b"data: {"):
                first = first or time.perf_counter() - began
                found += [i for choice in json.loads(line[6:])["choices"] for i in choice["token_ids"]]
    return first, found


def prefill(pipe: Pipeline, ids: list[int]) -> float:
    """Seconds until the first token of a text."""
    began = time.perf_counter()
    text = pipe.start(ids, max_new_tokens=1, do_sample=False)
    next(iter(text))
    return time.perf_counter() - began


def test_a_served_decoder(
    model: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    made, folder = model
    monkeypatch.setenv(PLACE, str(tmp_path))
    began = time.monotonic()
    with serving(folder, *FLAGS, command=("stagecut", "serve")) as server:
        streamed(server.url, prompt(0))
        answered = time.monotonic() - began
        [artifact] = (tmp_path / "artifacts").iterdir()
        with Pipeline.load(artifact) as pipe:
            prefill(pipe, prompt(1))
            alone, served = side_by_side(
                lambda n: prefill(pipe, prompt(n)), lambda n: streamed(server.url, prompt(n))[0]
            )
        with ThreadPoolExecutor(CLIENTS) as pool:
            texts = [*pool.map(lambda n: streamed(server.url, prompt(n))[1], range(100, 100 + 2 * CLIENTS))]
        benchmark.pedantic(lambda: streamed(server.url, prompt(99)), rounds=1)
    for n, text in enumerate(texts, 100):
        whole = made.generate(torch.tensor([prompt(n)]), max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        assert text == whole[0, PROMPT:].tolist()
    print(f"\nfolder to first answer {answered:.1f} s ({ASKED[0]:g} asked)")
    print(f"first token {1e3 * served:.1f} ms, prefill alone {1e3 * alone:.1f} ms")
    print(f"that is {served / alone:.2f} times it ({ASKED[1]} asked)")
    benchmark.extra_info |= {"answered": answered, "first": served / alone}


def side_by_side(*runs: Callable[[int], float]) -> list[float]:
    """The median of each, which take turns."""
    found = [[run(2 + len(runs) * turn + i) for i, run in enumerate(runs)] for turn in range(TURNS)]
    return [median(column) for column in zip(*found, strict=True)]
