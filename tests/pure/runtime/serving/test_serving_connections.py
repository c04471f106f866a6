"""Heads of requests that are too large, too slow or no HTTP: each has its status and one sentence."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from runtime.serving.front import connections
from runtime.serving.front.connections import Connection
from runtime.serving.front.doors import Doors
from runtime.serving.front.metrics import Metrics
from tests.support.patience import PATIENCE


class Sent(asyncio.Transport):
    """What is written to a client, and whether the connection was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.data, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def answered(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def opened() -> tuple[Connection, Sent]:
    """A connection that was just made, in a loop that runs, and what its client gets."""
    config = uvicorn.Config(answered, http=Connection, ws="none", log_level="error")
    config.load()
    connection, sent = Connection(config, ServerState(), {}), Sent()
    connection.connection_made(sent)
    return connection, sent


def told(*parts: bytes, seconds: float = 0.0) -> Sent:
    """What a client gets that sends these parts and then waits so long, or until the connection is closed."""

    async def run() -> Sent:
        connection, sent = opened()
        for part in parts:
            connection.data_received(part)
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        until = time.monotonic() + seconds
        while not sent.closed and time.monotonic() < until:
            await asyncio.sleep(0.01)
        by_us = sent.closed
        connection.connection_lost(None)
        sent.closed = by_us
        return sent

    return asyncio.run(run())


HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
LONG = b"x: " + b"a" * connections.MOST_HEAD


@pytest.mark.parametrize(
    ("parts", "status", "message"),
    [
        ([HEAD, LONG], b"431 Request Header Fields Too Large", b"the headers have more than 65536 bytes"),
        ([HEAD + LONG + b"\r\n\r\n"], b"431 Request Header Fields Too Large", b"more than 65536 bytes"),
        ([HEAD, b"\r\n", HEAD, LONG], b"431 Request Header Fields Too Large", b"more than 65536 bytes"),
        ([b"\x16\x03\x01"], b"400 Bad Request", b"the request is no HTTP"),
    ],
)
def test_a_head_that_is_wrong_is_answered_and_the_connection_closed(
    parts: list[bytes], status: bytes, message: bytes
) -> None:
    sent = told(*parts)
    assert (sent.closed, b"HTTP/1.1 " + status in sent.data, message in sent.data) == (True, True, True)


@pytest.mark.parametrize("parts", [[], [HEAD], [HEAD, b"\r\n", HEAD]])
def test_a_head_that_does_not_come_is_given_up(parts: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SLOWEST_HEAD", 0.01)
    sent = told(*parts, seconds=PATIENCE)
    assert (sent.closed, b"HTTP/1.1 408 Request Timeout" in sent.data) == (True, True)


def test_a_body_may_be_longer_than_a_head_and_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SLOWEST_HEAD", 0.01)
    sent = told(HEAD + b"content-length: 200000\r\n\r\n", b"a" * 100_000, seconds=0.05)
    assert (sent.closed, sent.data.startswith(b"HTTP/1.1 200 OK")) == (False, True)


def test_a_client_that_leaves_ends_what_would_answer_it() -> None:
    ended: list[str] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("the answer")

    async def run() -> None:
        metrics = Metrics()
        config = uvicorn.Config(Doors(waits, "", metrics), http=Connection, ws="none", log_level="error")
        config.load()
        state = ServerState()
        connection = Connection(config, state, {})
        connection.connection_made(Sent())
        connection.data_received(HEAD + b"\r\n")
        await asyncio.sleep(0)
        [task] = state.tasks
        connection.connection_lost(None)
        await task
        assert ended == ["the answer"]
        assert b'status="499"' in metrics.page()

    asyncio.run(asyncio.wait_for(run(), PATIENCE))


@pytest.mark.parametrize("before", [[], [HEAD + b"\r\n"]])
def test_a_request_that_is_on_its_way_as_the_server_ends_is_the_last_one_answered(
    before: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a new connection, and on one that had an answer."""
    monkeypatch.setattr(connections, "ON_ITS_WAY", 0.01)

    async def run(*behind: bytes) -> Sent:
        connection, sent = opened()
        for part in before:
            connection.data_received(part)
            await asyncio.sleep(0.001)
        connection.shutdown()
        assert not sent.closed
        for part in behind:
            connection.data_received(part)
        while not sent.closed:
            await asyncio.sleep(0.001)
        connection.connection_lost(None)
        return sent

    for behind in ([], [HEAD + b"\r\n"]):
        sent = asyncio.run(asyncio.wait_for(run(*behind), PATIENCE))
        assert sent.data.count(b"HTTP/1.1 200 OK") == len(before) + len(behind)
        assert sent.data.endswith(b"connection: close\r\n\r\n") == bool(behind)
