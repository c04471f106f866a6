"""An artifact on the real TorchServe, Triton and Ray Serve: right answers, and none of 200 lost when processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from runtime.serving.packages.writing import write_package
from tests.support.artifacts.by_hand import Part, tensor, write

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "build" / "servers"
WHEEL = ENVIRONMENTS / "triton" / "wheel"
TRITON = WHEEL / "pytriton" / "tritonserver"
ROWS = 4
REQUESTS, CLIENTS = 200, 24


@dataclass(frozen=True)
class Real:
    """A real server: how it is started with a package, and asked."""

    name: str
    needs: Path  # what is there where it is installed
    command: tuple[str, ...]
    port: int
    path: str  # of requests for the model
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


def environment_of(name: str) -> Path:
    return ENVIRONMENTS / name / "bin"


SERVERS = (
    Real(
        "torchserve",
        environment_of("torchserve") / "torchserve",
        ("sh", "-c", "sh archive.sh && exec torchserve --start --foreground --ncs --ts-config config.properties"),
        8080,
        "/predictions/model",
        "/ping",
    ),
    Real(
        "triton",
        TRITON / "bin" / "tritonserver",
        (
            str(TRITON / "bin" / "tritonserver"),
            "--model-repository=.",
            f"--backend-directory={TRITON / 'backends'}",
            "--allow-grpc=false",
            "--allow-metrics=false",
            "--http-address=127.0.0.1",
        ),
        8000,
        "/v2/models/model/infer",
        "/v2/health/ready",
        {"LD_LIBRARY_PATH": str(WHEEL / "nvidia_pytriton.libs")},
    ),
    Real(
        "ray",
        environment_of("ray") / "serve",
        ("serve", "run", "app:app"),
        8000,
        "/v2/models/model/infer",
        "/v2/health/ready",
        {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"},
    ),
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = (x + 1) * 2 in two stages of 10 ms; a row of -1 raises."""
    odd = 'time.sleep(0.01)\nif (x == -1).any(): raise ValueError("minus one")\nreturn (x + 1,)'
    first = Part(odd, {"x": None}, {"h": ((1,), ())})
    second = Part("time.sleep(0.01)\nreturn (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    return write(tmp_path_factory.mktemp("servers") / "model", [first, second], inputs=(tensor("x", "batch", ROWS),))


@contextmanager
def running(real: Real, package: Path, log: Path, probe: Callable[..., httpx.Response]) -> Iterator[httpx.Client]:
    """The server, from its first answer that it is ready to the end of its processes.  `probe`: a first request."""
    path = f"{environment_of(real.name)}:{os.environ['PATH']}"
    environment = {**os.environ, **real.environment, "PATH": path}
    with log.open("w") as out:
        process = subprocess.Popen(
            real.command, cwd=package, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        with httpx.Client(base_url=f"http://127.0.0.1:{real.port}", timeout=60) as client:
            try:
                wait_for(lambda: is_ready(client, real, probe), process, log)
                yield client
            finally:
                left = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
                end(real, process)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                _, alive = psutil.wait_procs(left, 15)
                for one in alive:
                    one.kill()
    assert not [p for p in alive if "runtime.serving" in " ".join(p.cmdline())]


def end(real: Real, process: subprocess.Popen[bytes]) -> None:
    """As a person or an init system does; TorchServe's launcher does not hand the signal on."""
    if real.name == "torchserve":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGINT if real.name == "ray" else signal.SIGTERM)


def wait_for(done: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while not done():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() - began < 180, log.read_text()[-3000:]
        time.sleep(0.2)


def is_ready(client: httpx.Client, real: Real, probe: Callable[..., httpx.Response]) -> bool:
    try:
        return client.get(real.ready).status_code == 200 and probe(client, real).status_code == 200
    except httpx.HTTPError:
        return False


def ask(client: httpx.Client, real: Real, value: float = 1.0, shape: tuple[int, ...] = (1, ROWS)) -> httpx.Response:
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "data": [value] * (shape[0] * shape[1])}
    return client.post(real.path, json={"inputs": [entry]})


def part_of(client: httpx.Client, real: Real) -> dict[str, Any]:
    """The last element of each row of y, for x of 3.  Triton knows no names of parts."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, ROWS], "data": [3.0] * ROWS}
    parts = {"parameters": {"y": "[:, -1]"}} if real.name == "triton" else {"outputs": [{"name": "y[:, -1]"}]}
    return client.post(real.path, json={"inputs": [entry], **parts}).json()["outputs"][0]


def engines(artifact: Path) -> list[psutil.Process]:
    """The engines of this artifact."""
    found = [p for p in psutil.process_iter(["cmdline"]) if str(artifact) in (p.info["cmdline"] or ())]
    return [p for p in found if "runtime.serving.engines.engine_process" in p.info["cmdline"]]


@pytest.mark.parametrize("real", SERVERS, ids=lambda real: real.name)
def test_none_of_200_is_lost_when_the_engine_dies(real: Real, artifact: Path, tmp_path: Path) -> None:
    if not real.needs.exists():
        pytest.skip(f"{real.name} is not installed; make servers does that")
    package = tmp_path / "package"
    write_package(artifact, real.name, package, "model", ())
    with running(real, package, tmp_path / "log", ask) as client:
        # One that raises among eight: only it fails.
        with ThreadPoolExecutor(8) as pool:
            answers = [*pool.map(lambda value: ask(client, real, value), (1.0, 2.0, -1.0, 4.0, 5.0, 6.0, 7.0, 8.0))]
        assert [answer.status_code for answer in answers] == [200, 200, 500, *[200] * 5]
        assert "minus one" in answers[2].text
        assert ask(client, real, 1.0, (1, 3)).status_code == 400
        part = part_of(client, real)
        assert (part["shape"], part["data"]) == ([1], [8.0])

        [before] = engines(artifact)
        with ThreadPoolExecutor(CLIENTS) as pool:
            asked = [pool.submit(ask, client, real, float(n)) for n in range(1, REQUESTS + 1)]
            time.sleep(0.3)
            before.kill()
            found = [future.result() for future in asked]
        assert [answer.status_code for answer in found] == [200] * REQUESTS
        for n, answer in enumerate(found, 1):
            assert answer.json()["outputs"][0]["data"] == [(n + 1.0) * 2] * ROWS
        [after] = engines(artifact)
        assert after.pid != before.pid
