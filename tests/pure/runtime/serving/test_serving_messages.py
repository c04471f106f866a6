"""What a server says of requests and flags that it cannot take, where no other test asks for it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.exceptions import HTTPException

from runtime.errors import InputError
from runtime.serving.admission import RequestFailed
from runtime.serving.embeddings import Embeddings, _row
from runtime.serving.engines.hosts import host_job
from runtime.serving.engines.messages import EngineMessage
from runtime.serving.front import listening
from runtime.serving.front.app import Server, Settings, _read
from runtime.serving.packages.writing import write_package
from runtime.serving.protocols.openai_requests import FieldRefused, read_wish
from runtime.serving.texts import Texts
from tests.support.artifacts.by_hand import Part, tensor, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    parts = [Part("return (x,)", {"x": None, "image": None}, {"last_hidden_state": ((), (0,))})]
    inputs = (tensor("input_ids", "batch", 4, dtype="int64"), tensor("image", "batch", 4))
    return write(tmp_path / "own", parts, inputs=inputs, outputs=(tensor("last_hidden_state", "batch", 4),))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stream_options": {"chunk": 3}}, "of `stream_options`, only `include_usage` is supported"),
        ({"messages": []}, "`messages` must be a list of messages"),
        ({"messages": ["hello"]}, "each of `messages` is an object with a `role` and a `content`"),
        ({"messages": [{"role": "user"}]}, "the `content` of a message must be a text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "of the parts of a message, only texts are supported",
        ),
        ({"logit_bias": [3]}, "`logit_bias` must be an object of token ids and numbers"),
        ({"stream": "yes"}, "`stream` must be true or false"),
    ],
)
def test_fields_of_a_chat_that_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        read_wish({"messages": [{"role": "user", "content": "a"}], **fields}, True)
    assert str(refused.value) == message


def test_embeddings_that_a_model_does_not_give(folder: Path) -> None:
    model = Server(folder, [[]], Settings("own")).model
    with pytest.raises(InputError, match="this model gives no embeddings of texts alone: it takes `image`, too"):
        Embeddings(model)._require_encoder()
    with pytest.raises(InputError, match="`input_ids` is int32, and cannot hold these token ids"):
        _row(tensor("input_ids", 1, 4, dtype="int32"), [2**70])


def test_a_model_without_texts_is_asked_otherwise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(folder, [[]], Settings("own"))

    async def asked(_: object) -> dict[str, str]:
        return {"prompt": "a"}

    monkeypatch.setattr(server, "_asked", asked)
    with pytest.raises(FieldRefused, match="own writes no texts; ask it by /v2/models/own/infer"):
        asyncio.run(server._write(cast(Any, None), chat=False))


def test_a_body_that_grows_beyond_what_is_allowed() -> None:
    async def stream() -> Any:
        yield b"12345"

    with pytest.raises(HTTPException) as refused:
        asyncio.run(_read(cast(Any, SimpleNamespace(headers={}, stream=stream)), 4))
    assert refused.value.detail == "the body has more than the 4 bytes that are allowed"


@pytest.mark.parametrize(
    ("hosts", "address", "message"),
    [
        (2, ":9", "':9' is no address of a host, such as 10.0.0.1:"),
        (3, "10.0.0.1", "an artifact of 2 stages cannot run on 3 hosts"),
    ],
)
def test_hosts_that_cannot_be(hosts: int, address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        host_job(hosts, address, ["cpu:0", "cpu:1"])


def test_flags_that_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    flags = argparse.Namespace(artifact=folder, hosts=2, replicas=2, join=None, number=0)
    with pytest.raises(InputError, match="--replicas are for one host, and --hosts for one engine"):
        listening._job(flags, "10.0.0.1")
    with pytest.raises(InputError, match="a host that joins needs the number of --hosts, and its own --number from 1"):
        listening.followers_of(argparse.Namespace(hosts=1, join="10.0.0.1"))
    (tmp_path / "token").write_text("tökén")
    with pytest.raises(InputError, match="holds no token: one line of ASCII"):
        listening._token(tmp_path / "token")


def test_a_decoder_is_packed_for_triton_as_what_sends_many_responses(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"page": 0', '"page": 16'))
    written = {path.name: path.read_text() for path in write_package(folder, "triton", tmp_path / "out", "own", [])}
    assert "decoupled: true" in written["config.pbtxt"]
    assert '{ name: "text_input", data_type: TYPE_STRING, dims: [1], optional: true }' in written["config.pbtxt"]
    assert "import TritonTextModel as TritonPythonModel" in written["model.py"]
    assert "/v2/models/own/generate --json" in written["README.md"]


def test_a_package_replaces_what_it_wrote_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(
        InputError, match=r"README\.md, which stagecut did not write, or which was edited since; name another"
    ):
        write_package(folder, "ray", out, "own", [])
    assert [file.name for file in out.iterdir()] == ["README.md"]
    written = write_package(folder, "ray", out, "own", [], force=True)
    assert (out / "README.md.old").read_text() == "mine"
    assert write_package(folder, "ray", out, "other", []) == written
    written[0].write_text("edited")
    with pytest.raises(InputError, match=written[0].name):
        write_package(folder, "ray", out, "own", [])
    with pytest.raises(InputError, match="is in the artifact, whose files stagecut check counts"):
        write_package(folder, "ray", folder / "ray", "own", [])


@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_a_text_that_ends_its_engine_twice_fails(tokens: int) -> None:
    """Unless it went on in between, by a token more than the one that a prompt gives."""

    async def run() -> list[Any]:
        texts, news = Texts(lambda *_: None, 4), asyncio.Queue[Any]()
        texts.opened()
        texts.begin("a", {}, news)
        for _ in range(2):
            for token in range(tokens):
                texts.step({"id": 1, "token": token, "text": "", "logprob": 0.0, "reason": ""})
            texts.lost()
            texts.opened()
        texts.ended(1)
        return [news.get_nowait()[1] for _ in range(news.qsize())]

    *_, last = asyncio.run(run())
    if tokens == 2:
        assert last is None
    else:
        assert isinstance(last, RequestFailed)
        assert str(last) == "the model's process ended while it wrote this text, twice"


def test_a_text_that_ends_engines_at_a_token_fails_and_those_beside_it_are_written() -> None:
    """Of 5 texts of 6 tokens; the engine ends at the fourth one of the third text, before it tells the third one."""

    async def run() -> dict[str, list[Any]]:
        news, asked, ends = asyncio.Queue[Any](), dict[int, tuple[str, int]](), 0

        def ask(_: int, message: EngineMessage) -> None:
            prompt, written = message.fields["prompt"], message.fields["written"]
            assert written == [*range(len(written))]
            asked[message.fields["id"]] = prompt, len(written)

        texts = Texts(ask, 9)
        texts.opened()
        for prompt in "abcde":
            texts.begin(prompt, {}, news)
        while texts.in_progress:
            for number, (prompt, count) in [*asked.items()]:
                if (prompt, count) == ("c", 3):
                    ends += 1
                    assert ends < 7
                    asked.clear()
                    texts.lost()
                    texts.opened()
                    break
                asked[number] = prompt, count + 1
                if (prompt, count) != ("c", 2):
                    texts.step({"id": number, "token": count, "text": "", "logprob": 0.0, "reason": ""})
                if count == 5:
                    del asked[number]
                    texts.ended(number)
        written: dict[str, list[Any]] = {prompt: [] for prompt in "abcde"}
        while not news.empty():
            text, said = news.get_nowait()
            written[text.prompt].append(getattr(said, "token", said))
        return written

    written = asyncio.run(run())
    assert isinstance(written["c"].pop(), RequestFailed)
    assert written == {"c": [0, 1], **{prompt: [*range(6), None] for prompt in "abde"}}
