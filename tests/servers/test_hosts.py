"""A server whose stages are on two hosts, each a network namespace with a name and an address of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.artifacts.by_hand import Part, tensor, write

FIRST, SECOND = "10.77.0.1", "10.77.0.2"
ASK = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [float(sys.argv[1])] * 4}
connection.request("POST", "/v2/models/model/infer", json.dumps({"inputs": [entry]}))
answer = connection.getresponse()
print(answer.status, json.loads(answer.read()).get("outputs", [{}])[0].get("data"))
"""


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces that reach each other, and nothing else."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and ip")
    names = (f"sc{os.getpid()}a", f"sc{os.getpid()}b")
    with ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)
        run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, (FIRST, SECOND), strict=True):
            run("ip", "link", "set", name, "netns", name)
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", name)
            for link in (name, "lo"):
                run("ip", "-n", name, "link", "set", link, "up")
        yield names


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


@contextmanager
def on(host: str, log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process on a host, with a hostname of its own, until the end of the block."""
    # No name server knows these hosts, so gloo is told which of their interfaces to take.
    script = f'hostname {host}; export GLOO_SOCKET_IFNAME={host}; exec "$0" "$@"'
    whole = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", script, sys.executable, *command]
    with log.open("w") as out, subprocess.Popen(whole, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def asked(host: str, value: int) -> str:
    command = ["ip", "netns", "exec", host, sys.executable, "-c", ASK, str(value)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.strip()


def test_a_host_that_is_lost_comes_back_and_no_request_is_lost(hosts: tuple[str, str], tmp_path: Path) -> None:
    first = Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())})
    second = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    artifact = str(write(tmp_path / "model", [first, second], inputs=(tensor("x", "batch", 4),)))
    serve = ("-m", "runtime.serve", artifact, "--hosts", "2")
    with (
        on(hosts[0], tmp_path / "first", *serve, "--meet", f"{FIRST}:29400"),
        on(hosts[1], tmp_path / "second", *serve, "--join", f"{FIRST}:29400"),
    ):
        deadline = time.monotonic() + 120
        while (found := asked(hosts[0], 1)) != f"200 {json.dumps([4.0] * 4)}":
            assert time.monotonic() < deadline, (
                found,
                (tmp_path / "first").read_text(),
                (tmp_path / "second").read_text(),
            )
            time.sleep(0.5)
        for value in range(2, 5):
            [follower] = [p for p in psutil.process_iter(["cmdline"]) if is_follower(p, artifact)]
            follower.kill()
            assert asked(hosts[0], value) == f"200 {json.dumps([(value + 1) * 2.0] * 4)}"
    assert not [p for p in psutil.process_iter(["cmdline"]) if is_follower(p, artifact)]


def is_follower(process: psutil.Process, artifact: str) -> bool:
    line = process.info["cmdline"] or ()
    return "runtime.serving.engines.follower" in line and artifact in line
