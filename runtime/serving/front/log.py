"""The log of a server: lines of JSON on stderr, for people and for programs that collect them."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

from runtime.serving.engines.supervisor import EngineStatus


def log_request(number: str, method: str, path: str, status: int, seconds: float) -> None:
    """A request that was answered."""
    _log({"request": number, "method": method, "path": path, "status": status, "ms": round(seconds * 1e3, 3)})


def log_state(engine: int, status: EngineStatus) -> None:
    """A new state of an engine: it loads, is ready, has ended and is started again, or refused its artifact."""
    _log({"engine": engine, "state": str(status)})


def _log(line: dict[str, Any]) -> None:
    with suppress(OSError):  # who read it has left, as the terminal; requests are answered all the same
        print(json.dumps(line), file=sys.stderr, flush=True)
