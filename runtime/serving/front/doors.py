"""Around every request: the token, an id, one line of log, its count and its time."""

from __future__ import annotations

import asyncio
import hmac
from time import perf_counter
from typing import Any
from uuid import uuid4

from runtime.serving.front.connections import has_left, stays
from runtime.serving.front.log import log_request
from runtime.serving.front.metrics import Metrics
from runtime.serving.front.spans import request_span

UNGUARDED = ("/", "/v2/health/live", "/v2/health/ready")  # without a token: they tell nothing of the model


class Doors:
    """An ASGI application before another one."""

    def __init__(self, app: Any, token: str, metrics: Metrics) -> None:
        self._app = app
        self._token = f"Bearer {token}".encode() if token else b""
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0
        headers = dict(scope["headers"])
        number = headers.get(b"x-request-id") or uuid4().hex.encode()

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", number)]
            await send(message)

        stays(scope)
        with request_span(scope["method"], scope["path"], headers) as span:
            try:
                if self._token and scope["path"] not in UNGUARDED and not self._is_known(headers):
                    await _refuse(answer)
                else:
                    await self._app(scope, receive, answer)
            except asyncio.CancelledError:
                if not has_left(scope):
                    raise
                status = status or 499
            finally:
                span.answered(_handler(scope), status)
                self._note(scope, status, perf_counter() - began, number)

    def _is_known(self, headers: dict[bytes, bytes]) -> bool:
        return hmac.compare_digest(headers.get(b"authorization", b""), self._token)

    def _note(self, scope: Any, status: int, seconds: float, number: bytes) -> None:
        """Counted by the handler, not by the path: paths that clients make up would make metrics without end."""
        self._metrics.note(_handler(scope), status, seconds)
        log_request(number.decode("latin-1"), scope["method"], scope["path"], status, seconds)


def _handler(scope: Any) -> str:
    """The name of the function that answers a request; "none" where no route leads to one."""
    return getattr(scope.get("endpoint"), "__name__", "none").strip("_")


async def _refuse(send: Any) -> None:
    body = b'{"error":"the request has no token, or a wrong one; send Authorization: Bearer TOKEN"}'
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
