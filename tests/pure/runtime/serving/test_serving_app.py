"""The routes of a server whose engine never starts: bodies that do not come, and what the server says of itself."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.manifest.manifest import Manifest
from runtime.serving.arrays import Array
from runtime.serving.front import app as app_module
from runtime.serving.front import spans
from runtime.serving.front.app import Server, Settings
from runtime.serving.protocols.openai_requests import FieldRefused
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    parts = [Part("return (x,)", {"x": None}, {"y": ((), (0,))})]
    return Server(write(tmp_path / "mine", parts, inputs=(tensor("x", "batch", 4),)), [[]], Settings("mine", token="t"))


def through(server: Server, ask: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]], token: str = "t") -> Any:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=server.app())  # type: ignore[arg-type]
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=headers) as client:
            return await ask(client)

    return asyncio.run(run())


@pytest.mark.parametrize(("path", "status"), [("/v2/models/mine/infer", 408), ("/v1/completions", 408)])
def test_a_body_that_does_not_come_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    monkeypatch.setattr(app_module, "SLOWEST_BODY", 0.01)
    sent: list[Any] = []

    async def run() -> None:
        scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"authorization", b"Bearer t")]}
        scope |= {"query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "", "server": ("here", 80)}

        async def never() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            sent.append(message)

        await server.app()(scope, never, send)

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert sent[0]["status"] == status
    assert b"the body was not there within 0.01 s" in sent[1]["body"]


def test_the_description_names_the_routes_that_there_are(server: Server) -> None:
    described = through(server, lambda client: client.get("/openapi.json")).json()
    assert described["info"]["title"] == "mine"
    for path, methods in described["paths"].items():
        for method in methods:
            answer = through(server, lambda client, m=method, p=path: client.request(m, p))
            assert answer.status_code not in (404, 405), path


def test_an_adapter_is_a_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine", [Part("return (x,)", {"x": None}, {"y": ((), (0,))})])
    replace(Manifest.read(folder), adapters=("poet",)).write(folder)
    server, seen = Server(folder, [[]], Settings("mine", token="t")), list[Any]()

    def answer(wish: Any, *_: Any) -> Any:
        seen.append(wish.options.get("adapter"))
        raise FieldRefused("enough is seen", "model")

    monkeypatch.setattr(app_module, "TextAnswer", answer)
    monkeypatch.setattr(type(server.model.interface), "writes_texts", True)
    listed = through(server, lambda client: client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["mine", "poet"]
    for model, status in (("poet", 400), ("mine", 400), ("clerk", 404)):
        body = {"model": model, "prompt": [1]}
        assert through(server, lambda client, b=body: client.post("/v1/completions", json=b)).status_code == status
    assert seen == ["poet", None]


def test_the_dashboard_shows_numbers_that_there_are(server: Server) -> None:
    through(server, lambda client: client.post("/v2/models/mine/infer", content=b"{"))
    page = through(server, lambda client: client.get("/metrics")).text
    known = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    used = set(re.findall(r"stagecut_\w+", (ROOT / "docs" / "grafana.json").read_text()))
    assert len(used) > 10
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} <= known


class FakeTracer:
    """In place of a tracer of OpenTelemetry, which this environment need not have."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    @contextmanager
    def start_as_current_span(self, name: str, **given: Any) -> Iterator[Any]:
        told: dict[str, Any] = {"name": name, "context": given["context"], **given["attributes"]}
        self.spans.append(told)
        yield SimpleNamespace(update_name=lambda name: told.update(name=name), set_attributes=told.update)

    def start_span(self, name: str, start_time: int) -> Any:
        return SimpleNamespace(end=lambda at: self.spans.append({"name": name, "seconds": (at - start_time) / 1e9}))


def test_each_request_is_a_span_below_its_clients(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = FakeTracer()
    kind = SimpleNamespace(SERVER="server")
    monkeypatch.setattr(spans, "trace", SimpleNamespace(get_tracer=lambda name: tracer, SpanKind=kind))
    monkeypatch.setattr(spans, "propagate", SimpleNamespace(extract=lambda carrier: carrier.get("traceparent")))
    through(server, lambda client: client.get("/v2/models/other", headers={"traceparent": "00-1-2-01"}))
    [span] = tracer.spans
    assert (span["name"], span["context"], span["http.response.status_code"]) == ("metadata", "00-1-2-01", 404)
    server.model.admission.opened(1)

    async def ask() -> None:
        answer = asyncio.ensure_future(server.model.admission.answer({"x": Array("int8", (1,), b"1")}, None))
        await asyncio.sleep(0.02)
        server.model.admission.done(1, {})
        await answer

    began = time.monotonic()
    asyncio.run(ask())
    assert [span["name"] for span in tracer.spans[1:]] == ["queue", "engine"]
    assert 0.01 < tracer.spans[2]["seconds"] < time.monotonic() - began


def test_the_page_is_open_and_its_data_is_not(server: Server) -> None:
    page = through(server, lambda client: client.get("/"), token="wrong")
    assert (page.status_code, "default-src 'none'" in page.headers["content-security-policy"]) == (200, True)
    assert "{{" not in page.text
    assert "mine" not in page.text
    assert through(server, lambda client: client.get("/status"), token="wrong").status_code == 401
    status = through(server, lambda client: client.get("/status")).json()
    assert (status["name"], status["ready"], len(status["cut"])) == ("mine", False, 1)
    assert json.dumps(status, allow_nan=False)
