"""The HTTP front: routes, limits, and a status and one sentence for whatever goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime.errors import InputError
from runtime.serving.admission import Limits, Overloaded, RequestFailed
from runtime.serving.embeddings import Embeddings
from runtime.serving.engines.hosts import HostJob
from runtime.serving.front.doors import Doors
from runtime.serving.front.log import log_state
from runtime.serving.front.metrics import CONTENT_TYPE, Metrics
from runtime.serving.front.spans import work_spans
from runtime.serving.front.status_page import StatusPage
from runtime.serving.protocols import oip
from runtime.serving.protocols.openai_answers import TextAnswer
from runtime.serving.protocols.openai_embeddings import embedding_answer, read_embedding_wish
from runtime.serving.protocols.openai_requests import FieldRefused, NoSuchModel, read_wish
from runtime.serving.served_model import STATUS, ServedModel, http_status

_OPENAI = ("/v1", "/openai/v1")  # where clients look for the OpenAI API; the second is KServe's
SLOWEST_BODY = 30.0  # seconds in which a body must have arrived


@dataclass(frozen=True)
class Settings:
    """The settings of a server."""

    name: str
    limits: Limits = Limits()
    exact: bool = False  # no request shares a batch with another
    token: str = ""  # that requests must bring; empty: none
    most_bytes: int = 64 << 20  # of a body


class Server:
    """The routes that lead to an artifact that is served."""

    def __init__(
        self, artifact: Path, engines: Sequence[Sequence[str]], settings: Settings, job: HostJob | None = None
    ) -> None:
        """`engines` and `job`: see ServedModel.  Raises ManifestError."""
        self.settings = settings
        self.metrics = Metrics()
        self.model = ServedModel(
            artifact, engines, settings.limits, settings.exact, self.metrics.began, self._timed, job, log_state
        )
        self.metrics.follow(self.model)
        self._page = StatusPage(self.model, settings.name, self.metrics.recent)
        self._embedder = Embeddings(self.model)
        self._began = int(time.time())

    def app(self) -> Callable[..., Awaitable[None]]:
        """The ASGI application."""
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes = [
            *self._page.routes(),
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            *(Route(path, self._metadata) for path in (model, version)),
            *(Route(f"{path}/ready", self._model_ready) for path in (model, version)),
            *(Route(f"{path}/infer", self._infer, methods=["POST"]) for path in (model, version)),
            *(route for prefix in _OPENAI for route in self._openai(prefix)),
            Route("/metrics", self._metrics),
        ]
        handlers: dict[Any, Callable[..., Any]] = dict.fromkeys((*STATUS, *_OF_REQUESTS), _refused)
        handlers |= {HTTPException: _not_here, Exception: _broken}
        app = Starlette(routes=routes, lifespan=self._life, exception_handlers=handlers)
        return Doors(app, self.settings.token, self.metrics)

    def _openai(self, prefix: str) -> list[Route]:
        return [
            Route(f"{prefix}/models", self._models),
            Route(f"{prefix}/models/{{model}}", self._model),
            Route(f"{prefix}/completions", self._completions, methods=["POST"]),
            Route(f"{prefix}/chat/completions", self._chat, methods=["POST"]),
            Route(f"{prefix}/embeddings", self._embeddings, methods=["POST"]),
        ]

    def _timed(self, waited: float, ran: float) -> None:
        self.metrics.waits.observe(waited)
        work_spans(waited, ran)

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self.model.start()
        yield
        await self.model.stop()

    # ---- routes

    async def _server(self, request: Request) -> Response:
        return JSONResponse({"name": "stagecut", "version": "1", "extensions": ["binary_tensor_data", "output_parts"]})

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = self.model.is_ready
        return JSONResponse({"ready": ready, "state": self.model.state}, 200 if ready else 503)

    async def _model_ready(self, request: Request) -> Response:
        self._require_model(request)
        ready = self.model.is_ready
        return JSONResponse({"name": self.settings.name, "ready": ready}, 200 if ready else 503)

    async def _metadata(self, request: Request) -> Response:
        self._require_model(request)
        return JSONResponse(oip.metadata(self.model.interface, self.settings.name))

    async def _metrics(self, request: Request) -> Response:
        return Response(self.metrics.page(), media_type=CONTENT_TYPE)

    async def _infer(self, request: Request) -> Response:
        self._require_model(request)
        asked = oip.read_request(await self._body(request), request.headers.get(oip.HEADER_LENGTH))
        outputs = await self.model.answer(asked.arrays, asked.seconds, [*asked.wanted])
        try:
            body, length = oip.answer(self.settings.name, asked, outputs)
        except InputError:
            raise
        except ValueError as e:
            raise RequestFailed(str(e), fault=False) from None
        if length is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={oip.HEADER_LENGTH: str(length)}, media_type="application/octet-stream")

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [*map(self._described, self._names)]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["model"] not in self._names:
            raise NoSuchModel(request.path_params["model"], self.settings.name)
        return JSONResponse(self._described(request.path_params["model"]))

    @property
    def _names(self) -> tuple[str, ...]:
        """The name of the model, and those of the adapters that its artifact keeps."""
        return (self.settings.name, *self.model.interface.manifest.adapters)

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "stagecut"}

    async def _completions(self, request: Request) -> Response:
        return await self._write(request, chat=False)

    async def _chat(self, request: Request) -> Response:
        return await self._write(request, chat=True)

    async def _embeddings(self, request: Request) -> Response:
        wish = read_embedding_wish(await self._asked(request))
        vectors, tokens = await self._embedder.of(wish.prompts)
        return JSONResponse(embedding_answer(wish, self.settings.name, vectors, tokens))

    async def _asked(self, request: Request) -> Any:
        """The JSON of a request to the OpenAI API, which may name the model, or an adapter."""
        table = oip.read_json(await self._body(request))
        model = table.get("model", self.settings.name) if isinstance(table, dict) else self.settings.name
        if model not in self._names:
            raise NoSuchModel(model, self.settings.name)
        return table

    async def _write(self, request: Request, chat: bool) -> Response:
        table = await self._asked(request)
        wish, name = read_wish(table, chat), table.get("model", self.settings.name)
        if name != self.settings.name:
            wish = replace(wish, options={**wish.options, "adapter": name})
        if not self.model.interface.writes_texts:
            raise FieldRefused(
                f"{self.settings.name} writes no texts; ask it by /v2/models/{self.settings.name}/infer", "model"
            )
        answer = TextAnswer(wish, self.model.texts, self.settings.name)
        if wish.stream:
            return StreamingResponse(await answer.begun(), media_type="text/event-stream")
        return JSONResponse(await answer.whole())

    def _require_model(self, request: Request) -> None:
        model, version = request.path_params["model"], request.path_params.get("version", "1")
        if model != self.settings.name or version != "1":
            raise HTTPException(404, f"there is no model {model!r} of version {version}, only {self.settings.name!r}")

    async def _body(self, request: Request) -> bytes:
        """The body, if it is not too large and does not take too long."""
        if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
            raise HTTPException(415, f"the content encoding {encoding} is not supported; send the body as it is")
        async with _Deadline(SLOWEST_BODY) as deadline:
            return await _read(request, self.settings.most_bytes)
        assert deadline.passed
        raise HTTPException(408, f"the body was not there within {SLOWEST_BODY:g} s")


class _Deadline:
    """Ends the block in it after some seconds.  Without a task of its own, which asyncio.wait_for takes."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._seconds = seconds

    async def __aenter__(self) -> _Deadline:
        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end, task)
        return self

    async def __aexit__(self, kind: object, error: object, _: object) -> bool:
        self._timer.cancel()
        return self.passed and isinstance(error, asyncio.CancelledError)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self.passed = True
        task.cancel()


async def _read(request: Request, most: int) -> bytes:
    """A body of at most so many bytes."""
    parts, size = [], 0
    told = request.headers.get("content-length", "0")
    if not told.isdecimal() or int(told) > most:
        raise HTTPException(413, f"the body has {told} bytes, and {most} are allowed")
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise HTTPException(413, f"the body has more than the {most} bytes that are allowed")
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    status = _OF_REQUESTS.get(type(error)) or http_status(error)
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Overloaded) else {}
    return _said(request, status, str(error) or "the client left", headers, error)


_OF_REQUESTS = {FieldRefused: 400, NoSuchModel: 404, ClientDisconnect: 499}


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said(request, error.status_code, error.detail, error.headers, error)


async def _broken(request: Request, error: Exception) -> Response:
    """A fault of ours: its traceback is in the log."""
    return _said(request, 500, "the server failed on this request", {}, error)


def _said(request: Request, status: int, message: str, headers: Any, error: Exception) -> Response:
    """An error, as the clients of each protocol read it."""
    if not request.url.path.startswith(_OPENAI):
        return JSONResponse({"error": message}, status, headers)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    named = {name: getattr(error, name, None) for name in ("param", "code")}
    return JSONResponse({"error": {"message": message, "type": kind, **named}}, status, headers)
