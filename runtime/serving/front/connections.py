"""Connections: the head of a request has a size and a time, what is no HTTP is told so, a client that leaves ends what
would answer it, and as the server ends a request that is on its way is answered.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 64 << 10  # bytes
SLOWEST_HEAD = 30.0  # seconds in which a head must have arrived, the first one of a connection included
ON_ITS_WAY = 0.5  # seconds in which a request may still arrive as the server ends
_TASK, _LEFT = "stagecut.task", "stagecut.left"  # keys of an ASGI scope


def stays(scope: Any) -> None:
    """The current task answers the request of this scope, until its client leaves."""
    scope[_TASK] = asyncio.current_task()


def leave(scope: Any) -> None:
    """The client is gone: what answers it ends."""
    scope[_LEFT] = True
    if (task := scope.get(_TASK)) is not None:
        task.cancel()


def has_left(scope: Any) -> bool:
    """Whether the client of this request is gone."""
    return _LEFT in scope


class Connection(HttpToolsProtocol):
    """A connection of a client."""

    _in_head = True  # of a request, or before the first one
    _head = 0  # bytes of it
    _large = False  # whether it has too many
    _ends = False  # whether the server ends, so that the next request is the last one
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_head = False
        self._watch()
        super().connection_lost(exc)
        if self.cycle and not self.cycle.response_complete:
            leave(self.cycle.scope)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._in_head and self._head > MOST_HEAD:
            self._refuse_large()
        self._watch()

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
            self._large = True  # it came at once
            raise ValueError
        super().on_headers_complete()
        if self._ends and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The end of the server: a request that arrives within `ON_ITS_WAY` seconds is answered, as the last one."""
        self._ends = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(ON_ITS_WAY, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """The parser has stopped."""
        if self._large:
            self._refuse_large()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is no HTTP")

    def _refuse_large(self) -> None:
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers have more than {MOST_HEAD} bytes")

    def _watch(self) -> None:
        """See to it that a head does not take too long."""
        if self._in_head and self._timer is None:
            self._timer = self.loop.call_later(SLOWEST_HEAD, self._give_up)
        elif not self._in_head and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the headers were not there within {SLOWEST_HEAD:g} s")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer, and close the connection."""
        body = json.dumps({"error": message}).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()
