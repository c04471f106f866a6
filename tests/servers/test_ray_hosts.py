"""A replica of Ray Serve whose stages are in two actors, as on two hosts: Ray places them, watches them, mends them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from runtime.serving.packages.writing import write_package
from tests.servers.test_servers import ROWS, SERVERS, ask, running
from tests.support.artifacts.by_hand import Part, tensor, write

RAY = next(server for server in SERVERS if server.name == "ray")


def processes(*words: str) -> list[psutil.Process]:
    """Those in whose command line all the words are."""
    lines = ((p, " ".join(p.info["cmdline"] or ())) for p in psutil.process_iter(["cmdline"]))
    return [p for p, line in lines if all(word in line for word in words)]


def test_stages_are_shared_by_actors_and_nothing_is_lost_when_one_ends(tmp_path: Path) -> None:
    if not RAY.needs.exists():
        pytest.skip("ray is not installed; make servers does that")
    first = Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())})
    second = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    artifact = write(tmp_path / "model", [first, second], inputs=(tensor("x", "batch", ROWS),))
    write_package(artifact, "ray", tmp_path / "package", "model", ())
    app = tmp_path / "package" / "app.py"
    app.write_text(app.read_text().replace("replicas=1", "replicas=1, hosts=2"))
    follower = ("runtime.serving.engines.follower", str(artifact))
    with running(RAY, tmp_path / "package", tmp_path / "log", ask) as client:
        for value, lost in enumerate([follower, ("ray::StagecutHost",), follower], 1):
            [victim] = processes(*lost)
            victim.kill()
            answer = ask(client, RAY, float(value))
            assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [(value + 1) * 2.0] * ROWS)
    assert not processes(*follower)
