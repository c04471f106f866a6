"""Our own server, fuzzed with schemathesis against the OpenAPI document that it publishes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from tests.servers.test_servers import ROWS, environment_of
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.running.serving import Served, serving

PROGRAM = environment_of("schemathesis") / "schemathesis"


# What fits the document may still be refused: it does not say how many values a shape asks for, or which ids there are.
FLAGS = ("--exclude-checks", "positive_data_acceptance", "--max-examples", "100", "--no-color")


def fuzz(server: Served, folder: Path) -> None:
    """Send what fits the document and what does not."""
    command = [str(PROGRAM), "run", f"{server.url}/openapi.json", *FLAGS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not PROGRAM.exists():
        pytest.skip("schemathesis is not installed; make servers does that")


def test_no_request_breaks_what_the_document_says(tmp_path: Path) -> None:
    parts = [Part("return (x * 2,)", {"x": None}, {"y": ((), (0,))})]
    artifact = write(tmp_path / "twice", parts, inputs=(tensor("x", "batch", ROWS),))
    with serving(artifact) as server:
        server.wait()
        fuzz(server, tmp_path)
        assert server.infer([1.0] * ROWS).json()["outputs"][0]["data"] == [2.0] * ROWS


def test_nor_does_one_for_a_text(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 64}
    heads: dict[str, Any] = {"num_attention_heads": 2, "max_position_embeddings": 128}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, eos_token_id=63, pad_token_id=0))
    model.save_pretrained(tmp_path / "llama")
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w1"))
    words.save(str(tmp_path / "llama" / "tokenizer.json"))
    (tmp_path / "llama" / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}w4")
    flags = ("--generate", "--max-length", "64", "--no-cache", "-q")
    with serving(tmp_path / "llama", *flags, command=("stagecut", "serve")) as server:
        server.wait()
        fuzz(server, tmp_path)
        assert server.http.post("/v1/completions", json={"prompt": [3, 4]}).json()["usage"]["prompt_tokens"] == 2
