"""A served artifact beside `pipe.map`, `pipe` and a bare echo: what the front and the process boundary cost."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import pytest
import torch

from runtime import Pipeline
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.running.serving import Served, serving

SLEEP = 0.05  # seconds a batch takes in each stage, whatever else the machine does
REQUESTS = 120
ECHO = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def echo(request):
    return Response(await request.body(), media_type="application/json")

app = Starlette(routes=[Route("/", echo, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


def artifact(folder: Path, seconds: float, stages: int = 2) -> Path:
    wait = f"time.sleep({seconds})\n" if seconds else ""
    first = Part(f"{wait}return (x + 1,)", {"x": None}, {"h": ((1,), ())})
    second = Part(f"{wait}return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    return write(folder, [first, second], inputs=(tensor("x", "batch", 4),))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("slow") / "model", SLEEP)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("quick") / "model", 0.0)


def body() -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}


def asked(server: Served, requests: int, clients: int) -> float:
    """Requests a second of so many clients."""

    def client(count: int) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            for _ in range(count):
                assert http.post("/v2/models/model/infer", json=body()).status_code == 200

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        [*pool.map(client, [requests // clients] * clients)]
    return requests / (time.perf_counter() - began)


def test_clients_keep_the_stages_as_busy_as_a_stream_does(slow: Path, benchmark: Any) -> None:
    with Pipeline.load(slow) as pipe:
        began = time.perf_counter()
        assert len([*pipe.map((torch.ones(1, 4) for _ in range(REQUESTS)), in_flight=8)]) == REQUESTS
        streamed = REQUESTS / (time.perf_counter() - began)
    with serving(slow, "--exact") as server:
        server.wait()
        found = {n: asked(server, REQUESTS, n) / streamed for n in (1, 2, 4, 8)}
        benchmark.pedantic(asked, (server, REQUESTS, 4), rounds=1)
    print(f"\nrequests a second beside pipe.map ({streamed:.1f}), by clients: {found}")
    benchmark.extra_info |= {"ratio": found}


def test_the_latency_of_one_client(quick: Path, benchmark: Any) -> None:
    with Pipeline.load(quick) as pipe:
        alone = times(lambda: pipe(torch.ones(1, 4)))
    with serving(quick) as server:
        server.wait()
        with closing(HTTPConnection(server.url.removeprefix("http://"))) as connection:
            served = times(lambda: posted(connection))
        benchmark.pedantic(server.http.post, ("/v2/models/model/infer",), {"json": body()}, rounds=50)
    more = {"median": median(served) - median(alone), "p99": quantiles(served, n=100)[-1] - quantiles(alone, n=100)[-1]}
    print(f"\nms beyond the pipeline's own: { ({name: round(1e3 * t, 2) for name, t in more.items()}) }")
    benchmark.extra_info |= more


def posted(connection: HTTPConnection) -> None:
    """A request by the client of the standard library, which takes a third of the time that httpx does."""
    connection.request("POST", "/v2/models/model/infer", json.dumps(body()))
    answer = connection.getresponse()
    assert (answer.status, len(answer.read()) > 0) == (200, True)


def times(call: Any) -> list[float]:
    found = []
    for _ in range(500):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found[100:]


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "echo.py").write_text(ECHO)
    with subprocess.Popen([sys.executable, str(tmp_path / "echo.py"), str(port)]) as process:
        yield f"http://127.0.0.1:{port}/"
        process.kill()


def test_the_front_beside_a_bare_echo(quick: Path, echo: str, benchmark: Any) -> None:
    with serving(quick) as server:
        server.wait()
        front = rate(f"{server.url}/v2/models/model", "GET")
        whole = rate(f"{server.url}/v2/models/model/infer", "POST")
        bare = rate(echo, "POST")
        benchmark.pedantic(rate, (f"{server.url}/v2/models/model", "GET"), rounds=1)
    print(f"\nrequests a second: echo {bare:.0f}, front {front / bare:.2f} of it, with the engine {whole / bare:.2f}")
    benchmark.extra_info |= {"front": front / bare, "whole": whole / bare}


def rate(url: str, method: str) -> float:
    """Requests a second of four clients, 300 each."""

    def client(_: int) -> None:
        with httpx.Client(timeout=60) as http:
            for _ in range(300):
                assert http.request(method, url, json=body() if method == "POST" else None).status_code == 200

    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(client, range(4))]
    return 1200 / (time.perf_counter() - began)
