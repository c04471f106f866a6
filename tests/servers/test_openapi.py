"""Our own server, fuzzed with schemathesis against the OpenAPI document that it publishes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.servers.test_servers import ROWS, environment_of
from tests.support.artifacts import Part, tensor, write
from tests.support.serving import serving

PROGRAM = environment_of("schemathesis") / "schemathesis"


def test_no_request_breaks_what_the_document_says(tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.skip("schemathesis is not installed; make servers does that")
    parts = [Part("return (x * 2,)", {"x": None}, {"y": ((), (0,))})]
    artifact = write(tmp_path / "twice", parts, inputs=(tensor("x", "batch", ROWS),))
    with serving(artifact) as server:
        server.wait()
        # What fits the document may still be refused: it does not say how many values a shape asks for.
        flags = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "100", "--no-color"]
        command = [str(PROGRAM), "run", f"{server.url}/openapi.json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
        assert done.returncode == 0, done.stdout[-5000:]
        assert server.infer([1.0] * ROWS).json()["outputs"][0]["data"] == [2.0] * ROWS
