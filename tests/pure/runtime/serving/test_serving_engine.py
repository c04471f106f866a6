"""The process that holds a pipeline, with one of a few lines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from runtime.errors import StageError, StageLost
from runtime.generation.continuation import Step
from runtime.serving.engines import engine_process
from runtime.serving.engines import supervisor as module
from runtime.serving.engines.engine_process import Serving
from runtime.serving.engines.messages import EngineMessage
from runtime.serving.engines.stopped import StoppedProcesses, children
from runtime.serving.engines.supervisor import EngineState, EngineStatus, Supervisor
from runtime.serving.front.log import log_request, log_state
from tests.support.patience import PATIENCE


def test_a_prompt_that_takes_long_to_read_holds_up_no_other_text() -> None:
    """And is not written where its client left meanwhile."""
    read, said = threading.Event(), SimpleQueue[tuple[str, int]]()

    class Text(list[Step]):
        prompt_tokens = 1

        def cancel(self) -> None:
            said.put(("cancelled", 1))
            self.clear()

    def start(prompt: str, **options: Any) -> Text:
        assert prompt == "short" or read.wait(PATIENCE)
        return Text([*(Step(0, token, "", False) for token in options["written"]), Step(0, 5, "w5", True)])

    texts = (1, "long", []), (2, "short", [7])  # of the second one a token was written before
    asked = [EngineMessage("text", {"id": i, "prompt": p, "options": {}, "written": w}) for i, p, w in texts]
    messages = iter([*asked, EngineMessage("cancel", {"id": 1}), None])

    def send(kind: str, fields: Mapping[str, Any], _: object = None) -> None:
        said.put((kind, fields.get("id", 0)))

    wire: Any = SimpleNamespace(send=send, receive=messages.__next__)
    pipe: Any = SimpleNamespace(start=start, pids={}, closed=False, devices=[])
    Serving(pipe, wire).serve()
    assert [said.get(timeout=PATIENCE) for _ in range(4)] == [("ready", 0), ("begun", 2), ("step", 2), ("end", 2)]
    read.set()
    assert [said.get(timeout=PATIENCE) for _ in range(3)] == [("cancelled", 1), ("begun", 1), ("end", 1)]


def test_what_is_asked_of_an_engine_that_ended_unnoticed_fails_nobody() -> None:
    """The socket is closed at the first message that does not arrive."""
    uvloop = pytest.importorskip("uvloop")

    async def ask() -> bool:
        ours, theirs = socket.socketpair()
        supervisor = Supervisor([], Mock(), Mock())
        _, writer = await asyncio.open_connection(sock=ours)
        supervisor._writer = writer
        theirs.close()
        while not writer.is_closing():
            supervisor.send(EngineMessage("text", {"id": 1}))
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        supervisor.send(EngineMessage("text", {"id": 2}))
        return writer.is_closing()

    loop = uvloop.new_event_loop()
    assert loop.run_until_complete(ask())
    loop.close()


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (StageLost(1, "cpu", ConnectionError("killed")), 1, []),
        (StageError(1, "cpu", ValueError("bad")), 2, ["refused"]),
    ],
)
def test_a_process_that_is_lost_while_it_loads_is_no_refusal(
    error: Exception, status: int, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor starts the engine again, and none that refused its artifact."""
    said: list[str] = []
    wire = SimpleNamespace(send=lambda kind, fields: said.append(kind))
    monkeypatch.setattr(engine_process, "Wire", lambda connection: wire)
    for name in ("Beating", "signal", "socket"):
        monkeypatch.setattr(engine_process, name, Mock())
    monkeypatch.setattr(engine_process, "loaded", Mock(side_effect=error))
    assert engine_process.main(["out", "--socket", "3"]) == status
    assert said == told


def test_each_state_of_an_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log says why there are no answers."""
    lives = [["beat", "beat", "ready", "lost", "ready"], ["beat", "refused"]]
    told: list[str] = []

    async def launch() -> asyncio.StreamReader:
        reader = asyncio.StreamReader()
        for kind in lives.pop(0):
            reader.feed_data(EngineMessage(kind, {"message": "stage 1 fails"}).packed())
        reader.feed_eof()
        return reader

    async def run() -> None:
        engine = Supervisor([], Mock(), Mock(), changed=lambda status: told.append(str(status)))
        monkeypatch.setattr(engine, "_launch", launch)
        await engine._keep()

    asyncio.run(run())
    first = ["loading", "ready", "mending: stage 1 fails", "ready", "starting: the engine's process ended"]
    assert told == [*first, "loading", "failed: stage 1 fails"]


def test_the_log_tells_states_and_goes_on_where_nobody_reads_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_state(1, EngineStatus(EngineState.FAILED, "device cuda:0 is not here"))
    assert json.loads(capsys.readouterr().err) == {"engine": 1, "state": "failed: device cuda:0 is not here"}
    monkeypatch.setattr(sys, "stderr", Mock(write=Mock(side_effect=BrokenPipeError)))
    log_request("1", "GET", "/", 200, 0.0)
    log_state(1, EngineStatus())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP") or sys.platform != "linux", reason="the system tells no children")
def test_a_process_that_is_stopped_at_two_looks_is_killed() -> None:
    """While stages load, too, which may take minutes."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        stopped = StoppedProcesses()
        stopped.look(children())
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        stopped.look(children())
        assert process.poll() is None
        assert process.pid in children()
        stopped.look(children())
        assert process.wait(PATIENCE) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP") or sys.platform != "linux", reason="the system tells no states")
def test_an_engine_that_is_stopped_before_its_first_sign_of_life_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.2)

    async def watch(engine: Supervisor, process: subprocess.Popen[bytes]) -> int:
        watched = asyncio.get_running_loop().create_task(engine._watch())
        await asyncio.sleep(0.5)
        assert process.poll() is None  # it may import for minutes
        process.send_signal(signal.SIGSTOP)
        ended = await asyncio.to_thread(process.wait, PATIENCE)
        watched.cancel()
        return ended

    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        engine = Supervisor([], Mock(), Mock())
        engine._process = process
        assert asyncio.run(watch(engine, process)) == -signal.SIGKILL
