"""KServe: its own client asks our server, and takes its package for an InferenceService."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runtime.serving.packages.writing import write_package
from tests.servers.test_servers import ROWS, environment_of
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.running.serving import serving

PYTHON = environment_of("kserve") / "python"
CHECK = """\
import sys, kserve, yaml
from kubernetes import client

def check(value, kind):
    if kind.lower().startswith("list["):
        return [check(one, kind[5:-1]) for one in value]
    model = getattr(kserve, kind, None) or getattr(client, kind, None)
    if not hasattr(model, "attribute_map"):
        return model.from_dict(value) if hasattr(model, "from_dict") else None
    names = {name: field for field, name in model.attribute_map.items()}
    for name, one in value.items():
        check(one, model.openapi_types[names[name]])

check(yaml.safe_load(open(sys.argv[1])), "V1beta1InferenceService")
"""


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    if not PYTHON.exists():
        pytest.skip("kserve is not installed; make servers does that")
    parts = [Part("return (x * 2,)", {"x": None}, {"y": ((), (0,))})]
    return write(tmp_path / "twice", parts, inputs=(tensor("x", "batch", ROWS),))


def test_its_client_gets_the_models_answers(artifact: Path) -> None:
    with serving(artifact) as server:
        server.wait()
        script = Path(__file__).with_name("kserve_client.py")
        done = subprocess.run([PYTHON, script, server.url], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    for answer in json.loads(done.stdout):
        assert answer["ready"] == [True, True, True]
        assert answer["y"] == [[0, 2, 4, 6], [8, 10, 12, 14]]
        assert "input `x` is missing" in answer["refused"]


def test_its_models_know_every_field_of_the_package(artifact: Path, tmp_path: Path) -> None:
    write_package(artifact, "kserve", tmp_path, "My_Model", ())
    done = subprocess.run(
        [PYTHON, "-c", CHECK, tmp_path / "inference.yaml"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
