"""Packages for other servers: their files, and their adapters with stand-ins of these servers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from http.client import InvalidURL
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from runtime.errors import InputError
from runtime.package import main
from runtime.serving.adapters import torchserve
from runtime.serving.adapters.hosted import gpus_of_a_host, whole_wish
from runtime.serving.adapters.torchserve import StagecutHandler
from runtime.serving.admission import Overloaded, RequestFailed
from runtime.serving.arrays import Array
from runtime.serving.engines.tensors import array_of, tensor_of
from runtime.serving.packages.flags import SERVERS
from runtime.serving.protocols.openai_answers import TextPiece
from runtime.serving.protocols.openai_requests import FieldRefused
from tests.support.artifacts.by_hand import Part, tensor, write


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    parts = [Part("return (x,)", {"x": None}, {"y": ((), (0,))})]
    return write(tmp_path / "twice", parts, inputs=(tensor("x", "batch", 4),))


@pytest.mark.parametrize("server", SERVERS)
def test_a_package_has_no_gaps_and_names_the_artifact(
    server: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "package"
    assert main([str(artifact), "--for", server, "-o", str(out), "--serve-flag=--exact"]) == 0
    files = [Path(line) for line in capsys.readouterr().out.split()]
    assert sorted(files) == sorted(file for file in out.rglob("[!.]*") if file.is_file())
    text = "".join(file.read_text() for file in files)
    assert "{{" not in text.replace("{{ name", "")
    assert (str(artifact) in text, "--exact" in text) == (True, True)
    for file in (file for file in files if file.suffix == ".py"):
        compile(file.read_text(), str(file), "exec")


def test_tritons_configuration_has_the_inputs_of_the_manifest(artifact: Path, tmp_path: Path) -> None:
    main([str(artifact), "--for", "triton", "-o", str(tmp_path), "--name", "mine"])
    text = (tmp_path / "mine" / "config.pbtxt").read_text()
    assert 'name: "x", data_type: TYPE_FP32, dims: [-1, 4]' in text


@pytest.mark.parametrize(("name", "resource"), [("My.Model_1", "my-model-1"), ("7b", "model-7b")])
def test_kubernetes_takes_the_name_of_the_resource(name: str, resource: str, artifact: Path, tmp_path: Path) -> None:
    main([str(artifact), "--for", "kserve", "-o", str(tmp_path), "--name", name, '--serve-flag=--devices="a"'])
    assert f"\n  name: {resource}\n" in (tmp_path / "inference.yaml").read_text()
    [line] = [line for line in (tmp_path / "Dockerfile").read_text().splitlines() if line.startswith("ENTRYPOINT")]
    command = json.loads(line.removeprefix("ENTRYPOINT"))
    assert (command[5], command[-1]) == (name, '--devices="a"')


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--name", "a b"], "'a b' is no name of a model: letters, digits, dots and dashes"),
        (["--name", "../up"], "'../up' is no name of a model"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_one_line(
    flags: list[str], message: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(artifact), "--for", "triton", "-o", str(tmp_path / "out"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Model:
    """In place of a HostedModel: y = 2 x, at once."""

    def submit(self, arrays: Any, outputs: Any = ()) -> Future[Any]:
        done: Future[Any] = Future()
        x = tensor_of(arrays["x"])
        if (x == -1).any():
            done.set_exception(RequestFailed("it raised", fault=False))
        elif (x == -2).any():
            done.set_exception(Overloaded(9, 3))
        else:
            whole = {"y": x * 2, "y[:, -1]": x[:, -1] * 2}
            done.set_result({name: array_of(whole[name]) for name in outputs or ["y"]})
        return done

    interface = SimpleNamespace(writes_texts=False)


class Decoder:
    """In place of a HostedModel that writes texts."""

    interface = SimpleNamespace(writes_texts=True)

    def write(self, table: Any, name: str) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result({"model": name, "prompt": table["prompt"]})
        return done


class Context:
    """In place of TorchServe's."""

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.headers: dict[str, str] = {}

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        self.statuses[index] = code

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self.headers[name] = value


def asked(value: float, width: int = 4) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, width], "data": [value] * width}]}


def test_each_request_to_torchserve_has_a_status_of_its_own() -> None:
    handler, context = StagecutHandler(), Context()
    handler.name, handler.model = "twice", Model()  # type: ignore[assignment]
    rows = [
        {"body": asked(1)},
        {"body": asked(-1)},
        {"data": b"{"},
        {"body": asked(-2)},
        {"body": json.dumps(asked(3) | {"outputs": [{"name": "y[:, -1]"}]}).encode()},
    ]
    answers = asyncio.run(handler.handle(rows, context))
    assert context.statuses == {1: 500, 2: 400, 3: 429}
    assert context.headers == {"retry-after": "3"}
    assert [answer["outputs"][0]["data"][0] for answer in (answers[0], answers[4])] == [2.0, 6.0]
    assert answers[4]["outputs"][0]["name"] == "y[:, -1]"
    assert answers[1] == {"error": "it raised"}


def test_torchserve_is_asked_for_nothing_until_its_table_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchserve, "_REQUESTS_FIRST", 3)
    monkeypatch.setattr(torchserve.time, "sleep", lambda _: None)
    seen: list[Any] = []

    class Front(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200 if len(seen) > 2 else 503)  # the model is not loaded yet
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Front) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        done = Event()
        torchserve._warm_up(f"http://127.0.0.1:{server.server_port}/predictions/model", done)
        server.shutdown()
    assert done.is_set()
    assert seen == [torchserve._WARM_UP] * 5
    handler, context = StagecutHandler(), Context()
    assert asyncio.run(handler.handle([{"body": seen[0]}], context)) == [{}]
    nobody = Event()
    torchserve._warm_up("http://127.0.0.1:9/", nobody)
    assert nobody.is_set()
    wrong = Event()
    with pytest.raises(InvalidURL):
        torchserve._warm_up("http://127.0.0.1:PORT/predictions/model", wrong)
    assert wrong.is_set()


def test_torchserve_hands_texts_on() -> None:
    handler, context = StagecutHandler(), Context()
    handler.name, handler.model = "llama", Decoder()  # type: ignore[assignment]
    rows = [{"body": b'{"prompt": "a"}'}, {"body": {"prompt": [1]}}, {"body": b"{"}]
    *answers, wrong = asyncio.run(handler.handle(rows, context))
    assert answers == [{"model": "llama", "prompt": "a"}, {"model": "llama", "prompt": [1]}]
    assert (context.statuses, "the request is no JSON" in wrong["error"]) == ({2: 400}, True)


def test_other_servers_answer_texts_as_a_whole() -> None:
    assert whole_wish({"messages": [{"role": "user", "content": "a"}]}).chat
    with pytest.raises(FieldRefused, match="`stream` is not supported here"):
        whole_wish({"prompt": "a", "stream": True})


def test_hosts_of_a_replica_share_its_gpus_alike() -> None:
    assert [gpus_of_a_host(gpus, 2) for gpus in (0, 2, 4)] == [0, 1, 2]
    with pytest.raises(InputError, match="3 GPUs are not as many on each of 2 hosts; give a multiple of 2"):
        gpus_of_a_host(3, 2)


def test_a_handler_of_ones_own_gives_and_takes_tensors() -> None:
    class Mine(StagecutHandler):
        def preprocess(self, request: Any) -> dict[str, torch.Tensor]:
            return {"x": torch.full((1, 4), request["value"])}

        def postprocess(self, outputs: Any) -> Any:
            return outputs["y"].sum().item()

    handler = Mine()
    handler.model = Model()  # type: ignore[assignment]
    assert asyncio.run(handler.handle([{"body": {"value": 2.0}}], Context())) == [16.0]


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """In place of Triton's module: its tensors are pairs of a name and what they hold."""
    fake: Any = ModuleType("triton_python_backend_utils")
    fake.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    fake.Tensor = lambda name, array: (name, array)
    fake.Tensor.from_dlpack = lambda name, capsule: (name, torch.from_dlpack(capsule))
    fake.TritonError = lambda message, code: (message, code)
    fake.TritonError.INVALID_ARG, fake.TritonError.INTERNAL, fake.TritonError.UNAVAILABLE = "bad", "internal", "busy"
    fake.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(tensors=tensors, error=error)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    yield fake
    for name in ("triton", "triton_texts"):
        sys.modules.pop(f"runtime.serving.adapters.{name}", None)


def test_triton_is_answered_from_the_callback_with_what_it_asked_for(triton: Any) -> None:
    from runtime.serving.adapters.triton import TritonPythonModel

    sent: list[Any] = []
    sender = SimpleNamespace(send=lambda response, flags: sent.append(response))

    def request(value: float, parameters: str = "{}") -> Any:
        x = torch.full((1, 4), value)
        given = SimpleNamespace(name=lambda: "x", to_dlpack=lambda: torch.to_dlpack(x))
        return SimpleNamespace(
            inputs=lambda: [given],
            parameters=lambda: parameters,
            requested_output_names=lambda: ["y"],
            get_response_sender=lambda: sender,
        )

    model = TritonPythonModel()
    model.model = Model()
    model.execute([request(1.0), request(-1.0), request(-2.0), request(3.0, '{"y": "[:, -1]"}')])
    assert [(name, y.tolist()) for name, y in (*sent[0].tensors, *sent[3].tensors)] == [
        ("y", [[2.0] * 4]),
        ("y", [6.0]),
    ]
    assert [response.error[1] for response in sent[1:3]] == ["internal", "busy"]


class Writer:
    """In place of a HostedModel that writes a word a token, and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def write_each(self, table: Any, name: str, take: Any) -> Future[None]:
        self.asked.append(table)
        done: Future[None] = Future()
        if "nope" in table:
            done.set_exception(FieldRefused("`nope` is not supported", "nope"))
            return done
        for token, reason in ((5, ""), (6, ""), (7, "length")):
            if not take(TextPiece(f" w{token}", token, reason)):
                break
        done.set_result(None)
        return done


def test_triton_gets_texts_as_tokens_or_as_a_whole(triton: Any) -> None:
    from runtime.serving.adapters.triton_texts import TritonTextModel

    sent: list[list[Any]] = []

    def request(parameters: str = "{}", leaves: bool = False, **inputs: Any) -> Any:
        responses: list[Any] = []
        sent.append(responses)
        sender = SimpleNamespace(
            send=lambda response=None, flags=0: responses.append(
                (response and (response.error or response.tensors), flags)
            ),
            is_cancelled=lambda: leaves,
        )
        given = [SimpleNamespace(name=lambda n=n: n, as_numpy=lambda v=v: v) for n, v in inputs.items()]
        return SimpleNamespace(
            inputs=lambda: given,
            parameters=lambda: parameters,
            requested_output_names=lambda: ["finish_reason", "token_ids", "text_output"],
            get_response_sender=lambda: sender,
        )

    model = TritonTextModel()
    model.name, model.model = "llama", Writer()  # type: ignore[assignment]
    text, warm = np.array([b"w1"], dtype=object), np.array([0.7], dtype=np.float32)
    chat = np.array([b'[{"role": "user", "content": "a"}]'], dtype=object)
    model.execute(
        [
            request(text_input=text, temperature=warm, stop=np.array([b"a", b"b"], dtype=object)),
            request('{"top_k": 3}', input_ids=np.array([1, 2]), stream=np.array([True])),
            request(messages=chat, stream=np.array([True]), leaves=True),
            request('{"nope": 1}', text_input=text),
            request(messages=text),
        ]
    )
    assert model.model.asked == [
        {"prompt": "w1", "temperature": 0.7, "stop": ["a", "b"]},
        {"top_k": 3, "prompt": [1, 2]},
        {"messages": [{"role": "user", "content": "a"}]},
        {"nope": 1, "prompt": "w1"},
    ]
    whole, streamed, left, refused, malformed = sent
    [(((_, reason), (_, tokens), (_, words)), flags)] = whole
    assert (reason.tolist(), tokens.tolist(), words.tolist(), flags) == ([b"length"], [5, 6, 7], [b" w5 w6 w7"], 1)
    assert [flags for _, flags in streamed] == [0, 0, 0, 1]
    assert [tensors[2][1].tolist() for tensors, _ in streamed[:3]] == [[b" w5"], [b" w6"], [b" w7"]]
    assert len(left) == 2  # a token, and the end
    assert refused == [(("`nope` is not supported", "bad"), 1)]
    assert malformed[0][0][0].startswith("the request is no JSON")


def test_a_triton_that_cannot_read_arrays_says_so(triton: Any) -> None:
    from runtime.serving.adapters.triton_texts import TritonTextModel

    triton.Tensor.from_dlpack = lambda name, capsule: SimpleNamespace(as_numpy=lambda: np.array([1, 1]))
    with pytest.raises(RuntimeError, match=r"this Triton cannot read arrays of NumPy .*; its Python needs numpy<2"):
        TritonTextModel().initialize({})


def test_arrays_are_copies_of_tensors_of_any_layout() -> None:
    x = torch.arange(6, dtype=torch.bfloat16).view(2, 3).t()
    assert torch.equal(tensor_of(array_of(x)), x)
    assert tensor_of(Array("int64", (0, 3), b"")).shape == (0, 3)
