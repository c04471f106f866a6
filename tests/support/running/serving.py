"""A server that runs, and how tests ask it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.patience import PATIENCE


class Served:
    """A server that runs, and how to ask it."""

    def __init__(self, process: subprocess.Popen[str], url: str, http: httpx.Client) -> None:
        self.process = process
        self.url = url
        self.http = http

    def is_ready(self) -> bool:
        return self.http.get("/v2/health/ready").status_code == 200

    def wait(self, ready: bool = True) -> float:
        """Until it is ready, or is not; the seconds that took."""
        began = time.monotonic()
        while self.is_ready() is not ready:
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.02)
        return time.monotonic() - began

    def starts(self) -> int:
        """The number of times that the engine, or a stage's process, was started."""
        return self.http.get("/status").json()["engines"][0]["starts"]

    def wait_for_loss(self, starts: int) -> None:
        """Until it has lost a process since it had started so many times, though it may be ready again by now."""
        began = time.monotonic()
        while self.is_ready() and self.starts() == starts:
            assert time.monotonic() - began < PATIENCE
            time.sleep(0.02)

    def wait_for_metric(self, line: str) -> None:
        """Until the metrics have a line."""
        began = time.monotonic()
        while line not in self.http.get("/metrics").text.splitlines():
            assert time.monotonic() - began < PATIENCE, line
            time.sleep(0.02)

    def infer(self, *rows: list[float], **fields: Any) -> httpx.Response:
        data = [value for row in rows for value in row]
        entry = {"name": "x", "datatype": "FP32", "shape": [len(rows), len(rows[0])], "data": data}
        return self.http.post("/v2/models/model/infer", json={"inputs": [entry], **fields})

    def engine(self) -> psutil.Process:
        """The process of the engine, as soon as there is one."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE:
            with suppress(psutil.Error):
                pid = self.http.get("/status").json()["engines"][0]["pid"]
                found = psutil.Process(pid)
                if pid and found.status() != psutil.STATUS_ZOMBIE:
                    return found
            time.sleep(0.02)
        raise AssertionError("there is no engine")


@contextmanager
def serving(source: Path, *flags: str, command: Sequence[str] = ("runtime.serve",)) -> Iterator[Served]:
    """A server of an artifact, or of what `command` takes, which is a module and its first arguments."""
    arguments = [*command, str(source), "--port", "0", "--name", "model", *flags]
    with subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        line = next((line for line in lines if line.startswith("serving ")), "")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(process.stderr.read)  # what it logs, so that it never waits for us
            found = re.search(r"http://\S+", line)
            try:
                assert found, line
                with httpx.Client(base_url=found[0], timeout=PATIENCE) as client:
                    yield Served(process, found[0], client)
            finally:
                process.kill()
