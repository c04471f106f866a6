"""A served artifact, with real clients: right answers, each fault its status, and nothing lost when processes die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch

from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.patience import PATIENCE
from tests.support.running.serving import Served, serving

serve_client = pytest.importorskip("examples.serve_client")
tritonclient = pytest.importorskip("tritonclient.http")
ROWS = 4
ONE_ROW = (
    b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}], '
    b'"outputs": [{"name": "%s"}]}'
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = (x + 1) * 2 in two stages; a row of -1 raises, one of -2 ends the process, one of -3 takes a while."""
    odd = """\
if (x == -1).any(): raise ValueError("minus one")
if (x == -2).any(): import os; os._exit(1)
if (x == -3).any(): time.sleep(0.5)
return (x + 1,)"""
    first = Part(odd, {"x": None}, {"h": ((1,), ())})
    second = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))})
    inputs = (tensor("x", "batch", ROWS),)
    return write(tmp_path_factory.mktemp("served") / "model", [first, second], inputs=inputs)


@pytest.fixture(scope="module")
def served(artifact: Path) -> Iterator[Served]:
    """Each stage has a process of its own."""
    with serving(artifact, "--processes") as server:
        server.wait()
        yield server


def test_tritons_client_gets_the_models_answers(served: Served) -> None:
    client = tritonclient.InferenceServerClient(served.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    described = client.get_model_metadata("model")
    assert described["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, ROWS], "parameters": {"sizes": "batch, 4"}}
    ]
    x = torch.randn(3, ROWS)
    for binary in (True, False):
        given = tritonclient.InferInput("x", [3, ROWS], "FP32")
        given.set_data_from_numpy(x.numpy(), binary_data=binary)
        wanted = tritonclient.InferRequestedOutput("y", binary_data=binary)
        answer = client.infer("model", [given], outputs=[wanted], request_id="mine")
        assert answer.get_response()["id"] == "mine"
        assert torch.equal(torch.tensor(answer.as_numpy("y")), (x + 1) * 2)
        part = tritonclient.InferRequestedOutput("y[:, -1]", binary_data=binary)
        answer = client.infer("model", [given], outputs=[part, wanted])
        assert torch.equal(torch.tensor(answer.as_numpy("y[:, -1]")), (x[:, -1] + 1) * 2)
        assert torch.equal(torch.tensor(answer.as_numpy("y")), (x + 1) * 2)
    client.close()


def test_the_example_asks_for_any_models_outputs(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    serve_client.main(served.url.removeprefix("http://"), "model")
    assert capsys.readouterr().out == "y FP32 [1, 4]\n"


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("model/infer", b"{", {}, 400, "the request is no JSON"),
        ("model/infer", b'{"inputs": []}', {}, 400, "input `x` is missing; the model takes `x`"),
        ("model/infer", ONE_ROW % b"y[:, 4]", {}, 400, "output `y[:, 4]`: dimension 1 has 4 elements"),
        ("model/infer", ONE_ROW % b"y[1]", {}, 400, "output `y[1]`: dimension 0 has 1 elements"),
        ("other/infer", b"{}", {}, 404, "there is no model 'other' of version 1, only 'model'"),
        ("model/versions/2/infer", b"{}", {}, 404, "of version 2"),
        ("model/infer", b"{}", {"content-encoding": "gzip"}, 415, "content encoding gzip is not supported"),
        ("model/infer", b"x" * (65 << 20), {}, 413, "67108864 are allowed"),
        ("model", b"", {}, 405, "Method Not Allowed"),
    ],
)
def test_each_fault_of_a_request_has_its_status_and_one_sentence(
    served: Served, path: str, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = served.http.post(f"/v2/models/{path}", content=body, headers=headers)
    assert answer.status_code == status
    assert message in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert len(answer.headers["x-request-id"]) == 32


def test_of_requests_in_flight_only_the_one_that_raises_fails(served: Served) -> None:
    rows = [[float(n)] * ROWS for n in (1, 2, -1, 4, 5, 6, 7, 8)]
    with ThreadPoolExecutor(len(rows) + 4) as pool:
        slow = [pool.submit(served.infer, [-3.0] * ROWS) for _ in range(4)]  # all slots
        answers = [*pool.map(served.infer, rows)]
    assert [answer.status_code for answer in answers] == [200, 200, 500, *[200] * 5]
    assert "stage 0 (cpu) raised ValueError: minus one" in answers[2].json()["error"]
    for row, answer in zip(rows, answers, strict=True):
        if answer.status_code == 200:
            assert answer.json()["outputs"][0]["data"] == [(row[0] + 1) * 2] * ROWS
    assert all(answer.result().status_code == 200 for answer in slow)
    assert re.search(r'stagecut_batch_rows_bucket\{le="4.0"\} (\d+)', served.http.get("/metrics").text)


def test_a_request_that_ends_a_stage_fails_and_others_are_answered(served: Served) -> None:
    served.wait()
    engine, starts = served.engine(), served.starts()
    with ThreadPoolExecutor(3) as pool:
        fatal = pool.submit(served.infer, [-2.0] * ROWS)
        served.wait_for_loss(starts)
        others = [pool.submit(served.infer, [float(n)] * ROWS) for n in (1, 2)]
        assert served.http.get("/v2/health/live").status_code == 200
        assert [other.result().json()["outputs"][0]["data"] for other in others] == [[4.0] * ROWS, [6.0] * ROWS]
        assert fatal.result().status_code == 500
        assert "the model's process ended while it ran this request" in fatal.result().json()["error"]
    assert served.engine() == engine  # only the process of the stage was started again
    served.wait()


@pytest.mark.parametrize("hangs", ["engine", "stage"])
def test_nothing_is_lost_when_a_process_hangs(served: Served, hangs: str) -> None:
    served.wait()
    engine, starts = served.engine(), served.starts()
    victim = engine if hangs == "engine" else engine.children()[-1]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(served.infer, [-3.0] * ROWS) for _ in range(4)]
        answers += [pool.submit(served.infer, [float(n)] * ROWS) for n in range(8)]
        time.sleep(0.3)
        victim.send_signal(signal.SIGSTOP)
        served.wait_for_loss(starts)
        assert [answer.result().status_code for answer in answers] == [200] * 12
    assert (served.engine() == engine) is (hangs == "stage")


# Stages that are loaded, and batches that are done, once a file is there.
HELD = """\
from pathlib import Path
while not Path("{file}").exists(): time.sleep(0.01)
"""


@pytest.fixture
def held(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An artifact, the file that has it loaded and the file that has it answer."""
    path, load, answer = tmp_path / "held", tmp_path / "load", tmp_path / "answer"
    part = Part(HELD.format(file=answer) + "return (x * 2,)", {"x": None}, {"y": ((), (0,))})
    write(path, [part], inputs=(tensor("x", "batch", ROWS),))
    stage = path / "stage_0.py"
    stage.write_text(stage.read_text() + HELD.format(file=load))
    return path, load, answer


def test_a_wrong_token_opens_nothing_but_health_and_the_end_answers_what_is_here(
    held: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    path, load, answer = held
    (tmp_path / "token").write_text("secret\n")
    with serving(path, "--token-file", str(tmp_path / "token"), "--max-queue", "1") as server:
        assert server.http.get("/v2/health/live").status_code == 200
        for headers in ({}, {"authorization": "Bearer secre"}, {"authorization": "secret"}):
            assert server.http.get("/v2", headers=headers).status_code == 401
            assert server.http.get("/status", headers=headers).status_code == 401
        known = {"authorization": "Bearer secret"}
        assert server.http.get("/v2", headers=known).json()["name"] == "stagecut"
        server.http.headers.update(known)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(server.infer, [1.0] * ROWS)  # for the stage, which is not loaded yet
            server.wait_for_metric("stagecut_waiting 1.0")
            refused = server.infer([2.0] * ROWS)
            assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
            engine = server.engine()
            load.touch()
            server.wait_for_metric("stagecut_running 1.0")
            server.process.send_signal(signal.SIGTERM)
            answer.touch()
            assert waits.result().status_code == 200
        assert server.process.wait(60) == 0
        assert not engine.is_running()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere"], "nowhere is not an artifact folder"),
        (["ARTIFACT", "--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines ask; give a token"),
        (["ARTIFACT", "--token-file", "nowhere"], "cannot read the token from nowhere"),
        (["ARTIFACT", "--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(artifact: Path, flags: list[str], message: str) -> None:
    given = [str(artifact) if flag == "ARTIFACT" else flag for flag in flags]
    done = subprocess.run(
        [sys.executable, "-m", "runtime.serve", *given], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_a_front_imports_no_torch(artifact: Path) -> None:
    code = "import sys, runtime.serving.front.listening; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert json.loads((artifact / "manifest.json").read_text())["name"] == "model"


def test_the_processes_end_with_the_front(artifact: Path) -> None:
    with serving(artifact, "--processes") as served:  # of its own: nothing can be asked after it
        served.wait()
        engine = served.engine()
        processes = [engine, *engine.children()]
        assert len(processes) == 3
        os.kill(served.process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, PATIENCE)
        assert not alive
