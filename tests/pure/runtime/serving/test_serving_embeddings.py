"""Embeddings over the OpenAI API, with its own client and a model that answers at once."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from runtime.serving.admission import Limits
from runtime.serving.arrays import Array
from runtime.serving.embeddings import Embeddings
from runtime.serving.front.app import Server, Settings
from tests.support.artifacts.by_hand import Part, tensor, write

WIDTH = 2


@pytest.fixture(scope="module")
def openai() -> Any:
    """The client, whose import takes a second: not while tests are collected."""
    return pytest.importorskip("openai")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    inputs = (
        tensor("input_ids", "batch", "seq", dtype="int64"),
        tensor("attention_mask", "batch", "seq", dtype="int64"),
    )
    parts = [
        Part("return (input_ids,)", {"input_ids": None, "attention_mask": None}, {"last_hidden_state": ((), (0,))})
    ]
    outputs = (tensor("last_hidden_state", "batch", "seq", WIDTH),)
    folder = write(tmp_path / "encoder", parts, inputs=inputs, outputs=outputs)
    (folder / "tokenizer").mkdir()
    words = Tokenizer(WordLevel({"a": 3, "b": 4, "?": 0}, unk_token="?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    return folder


async def states(arrays: Any, seconds: float | None = None) -> dict[str, Array]:
    """The states of a token are its id and 1."""
    ids = struct.unpack(f"<{arrays['input_ids'].shape[1]}q", arrays["input_ids"].data)
    assert struct.unpack(f"<{len(ids)}q", arrays["attention_mask"].data) == (1,) * len(ids)
    data = struct.pack(f"<{2 * len(ids)}f", *(x for i in ids for x in (i, 1.0)))
    return {"last_hidden_state": Array("float32", (1, len(ids), WIDTH), data)}


@pytest.fixture
def embedded(openai: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What the client gets from a server of an artifact for its input and other fields."""

    async def ask(server: Server, given: Any, fields: dict[str, Any]) -> Any:
        transport = httpx.ASGITransport(app=server.app())  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport) as http:
            client = openai.AsyncOpenAI(base_url="http://here/v1", api_key="none", max_retries=0, http_client=http)
            return await client.embeddings.create(model="encoder", input=given, **fields)

    def of(artifact: Path, given: Any, **fields: Any) -> Any:
        server = Server(artifact, [[]], Settings("encoder"))
        monkeypatch.setattr(server.model, "answer", states)
        return asyncio.run(ask(server, given, fields))

    return of


def test_padding_in_the_file_of_a_tokenizer_is_no_part_of_a_text(artifact: Path, embedded: Callable[..., Any]) -> None:
    """Sentence transformers save it there; its states would be among the mean."""
    path = artifact / "tokenizer" / "tokenizer.json"
    wanted = embedded(artifact, ["a b", "a"])
    words = Tokenizer.from_file(str(path))
    words.enable_padding(length=8)
    words.enable_truncation(8)
    words.save(str(path))
    assert embedded(artifact, ["a b", "a"]) == wanted


def test_an_embedding_that_the_model_returns_is_taken_as_it_is() -> None:
    vector = Array("float32", (1, WIDTH), struct.pack("<2f", 3.0, 4.0))
    assert Embeddings(None)._vector({"sentence_embedding": vector}) == [3.0, 4.0]  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_an_embedding_is_the_mean_of_the_states_of_length_one(
    artifact: Path, embedded: Callable[..., Any], form: str | None
) -> None:
    fields = {"encoding_format": form} if form else {}
    found = embedded(artifact, ["a b b", "b"], **fields)
    for entry, mean in zip(found.data, (11 / 3, 4.0), strict=True):
        vector = entry.embedding
        if isinstance(vector, str):  # asked for by its name, base64 stays what it is
            continue
        length = (mean**2 + 1) ** 0.5
        assert vector == pytest.approx([mean / length, 1 / length], abs=1e-6)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (4, 4)


def test_the_checkpoint_says_which_states_stand_for_the_text(
    artifact: Path, openai: Any, embedded: Callable[..., Any]
) -> None:
    pooling = {"word_embedding_dimension": 2, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (artifact / "tokenizer" / "config.json").write_text(json.dumps(pooling))
    [entry] = embedded(artifact, [[3, 9, 9]], encoding_format="float").data
    assert entry.embedding == pytest.approx([3 / 10**0.5, 1 / 10**0.5])
    (artifact / "tokenizer" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(openai.BadRequestError, match="this checkpoint pools by pooling_mode_max_tokens"):
        embedded(artifact, "a")


@pytest.mark.parametrize(
    ("given", "fields", "message"),
    [
        ("a", {"dimensions": 1}, "`dimensions` is not supported"),
        ([], {}, "`input` must be a text, a list of token ids, or a list of these"),
        ("", {}, "a text is empty"),
        ("a", {"extra_body": {"encoding_format": "hex"}}, "must be float or base64"),
    ],
)
def test_a_wrong_field_is_named(
    artifact: Path, openai: Any, embedded: Callable[..., Any], given: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        embedded(artifact, given, **fields)
    assert message in refused.value.body["message"]


def test_a_request_may_have_more_texts_than_may_wait(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, running, most = Server(artifact, [[]], Settings("encoder", Limits(waiting=8))), 0, 0

    async def slow(arrays: Any, seconds: float | None = None) -> dict[str, Array]:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0)
        running -= 1
        return await states(arrays)

    monkeypatch.setattr(server.model, "answer", slow)
    vectors, tokens = asyncio.run(Embeddings(server.model).of(["a"] * 20))
    assert (len(vectors), tokens, most) == (20, 20, 2)


def test_a_model_without_states_says_so(tmp_path: Path, openai: Any, embedded: Callable[..., Any]) -> None:
    parts = [Part("return (x,)", {"x": None}, {"y": ((), (0,))})]
    plain = write(tmp_path / "plain", parts, inputs=(tensor("x", "batch", 4),))
    with pytest.raises(openai.BadRequestError, match="this model gives no embeddings: it has no `input_ids`"):
        embedded(plain, "a")
