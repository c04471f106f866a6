"""A decoder on the real TorchServe, Triton and Ray Serve: its texts, also when its engine dies while it writes them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers as t
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from passes import compile_model
from runtime import Pipeline
from runtime.serving.packages.writing import write_package
from tests.servers.test_servers import SERVERS, Real, engines, running

PATHS = {"torchserve": "/predictions/model", "triton": "/v2/models/model/generate", "ray": "/v1/completions"}
TEXTS, CLIENTS, LENGTH = 48, 12, 100


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("texts")
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 2, "max_position_embeddings": 512}
    t.LlamaForCausalLM(t.LlamaConfig(**sizes, **heads, eos_token_id=63)).save_pretrained(folder / "llama")
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w1"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "llama" / "tokenizer.json"))
    compile_model(str(folder / "llama"), out=folder / "model", stages=2, generate=True, max_length=200, sequences=4)
    return folder / "model"


def ask(client: httpx.Client, real: Real, number: int = 5, **fields: Any) -> httpx.Response:
    prompt = "text_input" if real.name == "triton" else "prompt"
    asked = {prompt: f"w{number} w7", "max_tokens": LENGTH, "temperature": 0.8, "seed": number, **fields}
    return client.post(real.path, json=asked)


def written(answer: httpx.Response) -> str:
    table = answer.json()
    return table["text_output"] if "text_output" in table else table["choices"][0]["text"]


@pytest.mark.parametrize("server", SERVERS, ids=lambda real: real.name)
def test_no_text_is_lost_or_another_when_the_engine_dies(server: Real, artifact: Path, tmp_path: Path) -> None:
    if not server.needs.exists():
        pytest.skip(f"{server.name} is not installed; make servers does that")
    real = replace(server, path=PATHS[server.name])
    numbers = [*range(2, 62)] * 2
    with Pipeline.load(artifact) as pipe:
        starts = {n: pipe.start(f"w{n} w7", max_new_tokens=LENGTH, temperature=0.8, seed=n) for n in {*numbers[:TEXTS]}}
        wanted = {n: text.result() for n, text in starts.items()}
    write_package(artifact, real.name, tmp_path / "package", "model", ())
    with running(real, tmp_path / "package", tmp_path / "log", ask) as client:
        refused = ask(client, real, nope=1)
        assert (refused.status_code, "`nope` is not supported" in refused.text) == (400, True)
        [before] = engines(artifact)
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = {n: pool.submit(ask, client, real, n) for n in numbers[:TEXTS]}
            time.sleep(0.3)
            before.kill()
            answers = {n: future.result() for n, future in asked.items()}
        assert [answer.status_code for answer in answers.values()] == [200] * TEXTS
        assert {n: written(answer) for n, answer in answers.items()} == wanted
        if real.name == "triton":
            stream = client.post(f"{real.path}_stream", json={"text_input": "w5 w7", "max_tokens": 9, "stream": True})
            events = [json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if line]
            whole = ask(client, real, max_tokens=9, temperature=0)
            assert [event["finish_reason"] for event in events] == [""] * 8 + ["length"]
            assert len(written(whole).split()) == 9
