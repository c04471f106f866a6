"""The routes of a server whose engine never starts: bodies that do not come, and what the server says of itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.serving.front import app as app_module
from runtime.serving.front.app import Server, Settings
from tests.support.artifacts import Part, tensor, write


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

    asyncio.run(asyncio.wait_for(run(), 10))
    assert sent[0]["status"] == status
    assert b"the body was not there within 0.01 s" in sent[1]["body"]


def test_the_description_names_the_routes_that_there_are(server: Server) -> None:
    described = through(server, lambda client: client.get("/openapi.json")).json()
    assert described["info"]["title"] == "mine"
    for path, methods in described["paths"].items():
        for method in methods:
            answer = through(server, lambda client, m=method, p=path: client.request(m, p))
            assert answer.status_code not in (404, 405), path


def test_the_page_is_open_and_its_data_is_not(server: Server) -> None:
    page = through(server, lambda client: client.get("/"), token="wrong")
    assert (page.status_code, "default-src 'none'" in page.headers["content-security-policy"]) == (200, True)
    assert "{{" not in page.text
    assert "mine" not in page.text
    assert through(server, lambda client: client.get("/status"), token="wrong").status_code == 401
    status = through(server, lambda client: client.get("/status")).json()
    assert (status["name"], status["ready"], len(status["cut"])) == ("mine", False, 1)
    assert json.dumps(status, allow_nan=False)
