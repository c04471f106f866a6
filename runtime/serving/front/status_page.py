"""The page at `/`: what is served, what its stages do, and a box to try it; and the data that it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from runtime.manifest.manifest import TOKENIZER, Manifest
from runtime.serving.front.recent import RecentRequests
from runtime.serving.protocols import oip
from runtime.serving.served_model import ServedModel

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


class StatusPage:
    """The page, which needs no token as it holds no data, and its data."""

    def __init__(self, model: ServedModel, name: str, recent: RecentRequests) -> None:
        self._model = model
        self._name = name
        self._recent = recent

    def routes(self) -> list[Route]:
        return [
            Route("/", self._page),
            Route("/status", self._status),
            Route("/graph.svg", self._picture),
            Route("/openapi.json", self._description),
        ]

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(_page(), headers=_HEADERS)

    async def _status(self, request: Request) -> Response:
        return JSONResponse(self.status(), headers={"cache-control": "no-store"})

    async def _description(self, request: Request) -> Response:
        """The routes as OpenAPI describes them."""
        text = _filled("openapi.json", {"name": quote(self._name)})
        return Response(text, media_type="application/json")

    async def _picture(self, request: Request) -> Response:
        """The picture of the cut; nothing where the compiler could draw none."""
        path = self._model.artifact / "graph.svg"
        if not path.is_file():
            return Response(status_code=204)
        return Response(path.read_bytes(), media_type="image/svg+xml")

    def status(self) -> dict[str, Any]:
        """All that the page shows."""
        model = self._model
        described = oip.metadata(model.interface, self._name)
        admission = model.admission
        return {
            "name": self._name,
            "ready": model.is_ready,
            "state": model.state,
            "texts": model.interface.writes_texts,
            "chat": (model.artifact / TOKENIZER / "chat_template.jinja").is_file(),
            "inputs": described["inputs"],
            "outputs": described["outputs"],
            "engines": [
                {"state": str(s.status), "starts": s.status.starts, "read": s.status.read, "pid": s.pid}
                for s in model.supervisors
            ],
            "waiting": admission.waiting,
            "running": admission.running,
            "slots": admission.slots,
            "in_progress": model.texts.in_progress,
            "requests": self._recent.summary(),
            "cut": _cut(model.interface.manifest),
            "stages": [{"engine": engine, "stage": stage, **load} for engine, stage, load in model.stages()],
        }


def _cut(manifest: Manifest) -> list[dict[str, Any]]:
    """The stages of the first program: their devices and weights, and what each sends to which."""
    program = manifest.programs[0]
    return [
        {
            "device": entry.device,
            "weights": entry.nbytes,
            "sends": [{"name": send.tensor.name, "stages": list(send.stages)} for send in part.sends if send.stages],
        }
        for entry, part in zip(manifest.stages, program.stages, strict=True)
    ]


@cache
def _page() -> str:
    return _filled("page.html", {name: _asset(name) for name in ("page.css", "page.js")})


def _asset(name: str) -> str:
    return (files("runtime.serving.front") / "assets" / name).read_text(encoding="utf-8")


def _filled(name: str, values: Mapping[str, str]) -> str:
    """An asset with each `{{name}}` in it replaced."""
    return re.sub(r"\{\{(\S+?)\}\}", lambda found: values[found[1]], _asset(name))
