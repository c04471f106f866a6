"""Pipelines whose stages run in processes that this one starts, on CPUs: what they compute, and what ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
import torch

from runtime import Pipeline, PipelineClosed, StageError, StageLost
from runtime.device.kinds import DEVICE_KINDS, DeviceKind
from runtime.distributed.exit import kill_group
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import Manifest
from runtime.serving.engines.engine_process import Serving
from tests.support.artifacts.by_hand import Part, tensor, write
from tests.support.patience import PATIENCE
from tests.support.running.jobs import ROOT, environment, wait_for

LIMIT = 3.0  # seconds without a sign of life, or for a batch

FIRST = """\
import os, signal
if x[0, 0] == 5:
    raise KeyError("five")
if x[0, 0] == 6:
    os.kill(os.getpid(), signal.SIGKILL)
if x[0, 0] == 7:
    time.sleep(600)
return x + 1, (x * 10).t().contiguous().t()"""
SECOND = "self.count += 1\nreturn (c + b.t().reshape(-1).view(4, -1).t() + self.count,)"


def parts() -> list[Part]:
    count = {"count": torch.zeros(1)}
    return [
        Part(FIRST, {"x": None}, {"a": ((1,), (1,)), "b": ((2,), ())}, device="cpu:0"),
        Part("return (a * 2,)", {"a": 0}, {"c": ((2,), ())}, device="cpu:0"),
        Part(SECOND, {"b": 0, "c": 1}, {"y": ((), (0,))}, weights=count, state=("count",), device="cpu:1"),
    ]


def expected(x: torch.Tensor, count: int) -> torch.Tensor:
    return (x + 1) * 2 + x * 10 + count


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    outputs = [tensor("y"), tensor("a")]
    returns = {"tuple": [{"slot": 0}, {"slot": 1}]}
    path = write(tmp_path_factory.mktemp("processes"), parts(), outputs=outputs, returns=returns)
    before = psutil.Process().children()
    with Pipeline.load(path, timeout=LIMIT, processes=True) as pipe:
        yield pipe
    assert {*psutil.Process().children()} <= {*before}


def pids(pipe: Pipeline) -> dict[tuple[int, ...], int]:
    """The process of each group of stages."""
    return {stages: pid for pid, stages in pipe.pids.items()}


def batch(value: float, rows: int = 2) -> torch.Tensor:
    return torch.full((rows, 4), float(value))


def test_streams_traces_and_state(pipe: Pipeline, tmp_path: Path) -> None:
    assert sorted(pids(pipe)) == [(0, 1), (2,)]
    assert os.getpid() not in pids(pipe).values()
    pipe.reset()  # other tests may have had it before
    batches = [torch.randn(1 + i * 7 % 64, 4) for i in range(60)]
    for _ in range(2):
        for n, (x, (y, a)) in enumerate(zip(batches, pipe.map(batches, in_flight=9), strict=True)):
            assert torch.equal(a, x + 1)
            assert torch.allclose(y, expected(x, n + 1))
        pipe.reset()
    futures = [pipe.submit(x) for x in batches]  # nobody takes a result before all are sent
    assert all(torch.equal(f.result()[1], x + 1) for x, f in zip(batches, futures, strict=True))
    with pipe.trace(tmp_path / "trace.json") as trace:
        list(pipe.map(batches[:5]))
    assert [(run.stage, run.batch) for run in trace.runs] == [(i, n) for i in range(3) for n in range(5)]
    assert all(run.sent == len(batches[run.batch]) * (32 if run.stage == 0 else 16) for run in trace.runs)
    assert torch.equal(pipe(batches[1], microbatches=3)[1], batches[1] + 1)
    parts = pipe.run_named({"x": batches[2]}, outputs=["a[:, 1:3]", "a[0]"])  # stage 1 gets the whole of it
    assert torch.equal(parts["a[:, 1:3]"], batches[2][:, 1:3] + 1)
    assert torch.equal(parts["a[0]"], batches[2][0] + 1)


def test_a_stage_that_raises_costs_one_batch(pipe: Pipeline) -> None:
    before = pids(pipe)
    results = [pipe.submit(batch(value)) for value in (1, 5, 2)]
    with pytest.raises(StageError, match=r"^stage 0 \(cpu\) raised KeyError: 'five'$") as caught:
        results[1].result()
    assert not isinstance(caught.value, StageLost)
    assert torch.equal(results[2].result()[1], batch(3))
    assert pids(pipe) == before


def test_a_fork_of_the_caller_has_no_pipeline_and_closes_none(pipe: Pipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads
        child = os.fork()
    if not child:
        signal.alarm(int(PATIENCE))
        with suppress(BaseException):
            with pytest.raises(PipelineClosed, match="this process is a fork of the one that loaded the pipeline"):
                pipe(batch(1))
            with pytest.raises(PipelineClosed, match="load it here, too"):
                pipe.restart()
            assert pipe.closed
            pipe.close()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(pipe.submit(batch(1)).result(timeout=PATIENCE)[1], batch(2))


def kill(pipe: Pipeline) -> None:
    pipe(batch(6))


def hang(pipe: Pipeline) -> None:
    pipe(batch(7))


def stop(pipe: Pipeline) -> None:
    os.kill(pids(pipe)[0, 1], signal.SIGSTOP)
    pipe(batch(1))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (kill, "ConnectionError: process {pid}, which ran it, was ended by SIGKILL"),
        (hang, "TimeoutError: it is busy with one batch for more than 3 s"),
        (stop, "ConnectionError: process {pid}, which ran it, gave no sign of life for 3 s"),
    ],
)
def test_a_process_that_is_lost_and_the_restart(pipe: Pipeline, fault: Callable[[Pipeline], None], cause: str) -> None:
    before, started = pids(pipe), time.monotonic()
    waiting = [pipe.submit(batch(1)) for _ in range(3)]
    text = f"stage 0 (cpu) raised {cause.format(pid=before[0, 1])}"
    with pytest.raises(StageLost) as caught:
        fault(pipe)
    assert str(caught.value) == text
    assert time.monotonic() - started < PATIENCE
    for future in waiting:
        assert future.exception() is not None or torch.equal(future.result()[1], batch(2))
    assert pipe.closed
    with pytest.raises(PipelineClosed, match="this pipeline is closed, as stage 0"):
        pipe(batch(1))
    pipe.restart()
    after = pids(pipe)
    assert after[2,] == before[2,]  # it kept its weights
    assert after[0, 1] != before[0, 1]
    assert not psutil.pid_exists(before[0, 1])
    assert torch.allclose(pipe(batch(1))[0], expected(batch(1), 1))


@pytest.mark.parametrize("works", [True, False])
def test_its_owner_is_killed(tmp_path: Path, works: bool) -> None:
    """An owner of one thread, of which processes are copies; or, where a copy cannot use the device, new Pythons.

    Copies compile as it does: before a batch comes.
    """
    write(tmp_path / "out", [Part("return (x @ x.T,)", {"x": None}, {"y": ((), (0,))})])
    script = f"""\
import sys, torch
from pathlib import Path
from typing import Any
from runtime import Pipeline
from runtime.processes import start
torch.compile = lambda call: (Path(sys.argv[1], "called").touch(), call)[1]
start._works = lambda device: {works}
torch.set_num_threads(2)
x = torch.randn(300, 4)
y = x @ x.T  # by threads that no copy has
pipe = Pipeline.load(sys.argv[1], processes=True, compile={works})
print(*pipe.pids, flush=True)
sys.stdin.readline()
while True:
    assert torch.allclose(pipe(x), y)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        (member,) = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        assert (script in member.cmdline()) == works
        if works:
            wait_for(tmp_path / "out" / "called")
        print(file=owner.stdin, flush=True)
        owner.kill()
        member.wait(PATIENCE)


FORKS = """\
import os
child = os.fork()
if child == 0:
    time.sleep(600)
return (x + child,)"""


def test_what_a_stage_started_ends_with_its_process(tmp_path: Path) -> None:
    path = write(tmp_path / "out", [Part(FORKS, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path, processes=True) as pipe:
        child = psutil.Process(int(pipe(batch(0))[0, 0]))
    child.wait(PATIENCE)


CRASHES = FORKS.replace(
    "return (x + child,)",
    """\
if x[0, 0] == 1:
    os.kill(os.getpid(), 9)
return (x * 0 + child,)""",
)


def test_what_a_stage_forked_ends_with_a_process_that_crashes(tmp_path: Path) -> None:
    """It holds the connection to the caller open, which does not wait for signs of life."""
    path = write(tmp_path / "out", [Part(CRASHES, {"x": None}, {"y": ((), (0,))})])
    with Pipeline.load(path, processes=True) as pipe:
        child = psutil.Process(int(pipe(batch(0))[0, 0]))
        with pytest.raises(StageLost, match=r"which ran it, was ended by SIGKILL$"):
            pipe.submit(batch(1)).result(timeout=PATIENCE)
        child.wait(PATIENCE)


def test_a_process_that_loads_goes_on_where_another_could_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))}, device="cpu:1")
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())}, device="cpu:0"), slow])
    weights, file = path / "stage_0.safetensors", path / "stage_1.py"
    text = f"while not __import__('os').path.exists({str(path / 'go')!r}): time.sleep(0.01)\n        return module"
    file.write_text(file.read_text().replace("return module", text))
    (path / "go").touch()
    with pytest.warns(UserWarning, match="it was edited"):
        pipe = Pipeline.load(path, processes=True)
    with pipe:
        for pid in pipe.pids:
            os.kill(pid, signal.SIGKILL)
        while pipe.pids:
            time.sleep(0.01)
        (path / "go").unlink()
        whole = weights.read_bytes()
        weights.write_bytes(b"")
        with pytest.raises(Exception, match=r"^stage_0.py cannot read "):
            pipe.restart()
        weights.write_bytes(whole)
        [loading] = pipe.pids
        monkeypatch.setattr("runtime.processes.owner.GRACE", 0.0)
        threading.Timer(0.5, (path / "go").touch).start()
        pipe.restart()
        assert torch.equal(pipe(batch(1)), batch(4))
        assert loading in pipe.pids


def test_a_pipeline_that_is_closed_while_it_restarts(tmp_path: Path) -> None:
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"y": ((), (0,))})])
    file, slow = path / "stage_0.py", "time.sleep(600 if os.path.exists(f'{path}.slow') else 0)\n        return module"
    file.write_text(f"import os\n{file.read_text().replace('return module', slow)}")
    with pytest.warns(UserWarning, match="it was edited"):
        pipe = Pipeline.load(path, processes=True)
    (path / "stage_0.safetensors.slow").touch()
    [before] = pipe.pids
    os.kill(before, signal.SIGKILL)
    while before in pipe.pids:
        time.sleep(0.01)

    def close() -> None:
        while not pipe.pids:
            time.sleep(0.01)
        pipe.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(PipelineClosed, match="the processes of this pipeline were ended with it"):
        pipe.restart()
    closing.join()
    with pytest.raises(PipelineClosed, match="this pipeline is closed"):
        pipe(batch(1))
    with pytest.raises(PipelineClosed, match=r"ended with it; load it again with Pipeline\.load"):
        pipe.restart()
    assert not pipe.pids


def end_of_an_engine(pid: int) -> None:
    """What a server's engine does at its end, in a copy of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads
        engine = os.fork()
    if not engine:
        with suppress(BaseException):
            Serving.end(Mock(_gate=threading.Lock(), _pipe=Mock(pids={pid: (0,)})))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(engine, 0)[1]) == 1


@pytest.mark.parametrize("end", [kill_group, end_of_an_engine])
def test_what_a_process_started_is_killed_with_it(end: Callable[[int], None]) -> None:
    command = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdout is not None
        child = psutil.Process(int(leader.stdout.readline()))
        end(leader.pid)
    child.wait(PATIENCE)


def test_a_stage_that_cannot_be_loaded(tmp_path: Path) -> None:
    before = psutil.Process().children()
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"y": ((), (0,))})])
    (path / "stage_0.safetensors").write_bytes(b"")
    with pytest.raises(Exception, match=r"^stage_0.py cannot read .*; compile the model again$"):
        Pipeline.load(path, processes=True)
    assert psutil.Process().children() == before


def test_a_stage_that_cannot_be_loaded_does_not_wait_for_others(tmp_path: Path) -> None:
    slow = Part("return (h * 2,)", {"h": 0}, {"y": ((), (0,))}, device="cpu:1")
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())}, device="cpu:0"), slow])
    (path / "stage_0.safetensors").write_bytes(b"")
    file = path / "stage_1.py"
    file.write_text(file.read_text().replace("return module", "time.sleep(600)\n        return module"))
    before, started = psutil.Process().children(), time.monotonic()
    with pytest.warns(UserWarning, match="it was edited"), pytest.raises(Exception, match=r"^stage_0.py cannot read "):
        Pipeline.load(path, processes=True)
    assert time.monotonic() - started < PATIENCE
    assert psutil.Process().children() == before


def test_an_interrupted_load_ends_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an artifact's results are made of is imported while the processes load."""

    def interrupt(manifest: object) -> None:
        raise KeyboardInterrupt

    before = psutil.Process().children()
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"y": ((), (0,))})])
    monkeypatch.setattr("runtime.running_stages.Programs.parse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Pipeline.load(path, processes=True)
    assert psutil.Process().children() == before


@pytest.mark.parametrize("copied", [True, False])
def test_processes_have_the_variables_of_their_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    """Those that the user has set stay."""
    text = 'import os\nreturn (x + float(os.environ["ONE"]), x + float(os.environ["TWO"]))'
    stage = Part(text, {"x": None}, {"y": ((), (0,)), "z": ((), (1,))})
    returns = {"tuple": [{"slot": 0}, {"slot": 1}]}
    path = write(tmp_path / "out", [stage], outputs=[tensor("y"), tensor("z")], returns=returns)
    kind = DeviceKind("cpu", process_variables=(("ONE", "1"), ("TWO", "2")))
    monkeypatch.setitem(DEVICE_KINDS, "cpu", kind)
    monkeypatch.setenv("TWO", "20")
    if not copied:
        monkeypatch.setattr("runtime.processes.start.can_be_copied", lambda: False)
    with Pipeline.load(path, processes=True) as pipe:
        y, z = pipe(batch(0))
    assert (y[0, 0], z[0, 0]) == (1, 20)
    assert "ONE" not in os.environ


@pytest.mark.parametrize("compile", [True, False])
def test_a_copy_begins_to_import_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile: bool) -> None:
    """That is before it tries its device."""
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"y": ((), (0,))})])
    begun: list[Path] = []

    def fail(end: object, device: object, threads: int, ahead: Callable[[], object]) -> None:
        ahead()
        raise OSError("no process")

    monkeypatch.setattr("runtime.processes.owner.begin_import", lambda at, names: begun.append(at))
    monkeypatch.setattr("runtime.processes.owner.start_member", fail)
    with pytest.raises(OSError, match="no process"):
        Pipeline.load(path, processes=True, compile=compile)
    assert begun == [path / "compiled" / "python"] * compile


@pytest.mark.parametrize("processes", [True, False])
def test_to_prepare_is_to_wait_for_kernels_in_all_processes(tmp_path: Path, processes: bool) -> None:
    path = write(tmp_path / "out", [Part("return (x + 1,)", {"x": None}, {"y": ((), (0,))})])
    manifest = Manifest.read(path)
    text = """
import os
def kernels_are_compiled(): return False
def finish_kernels(): open(f"{__file__}.{os.getpid()}", "w").close()
"""
    (path / "fused.py").write_text(text)
    files = {**manifest.files, "fused.py": file_hash(path / "fused.py")}
    replace(manifest, helpers=("fused.py",), files=files).write(path)
    with Pipeline.load(path, processes=processes) as pipe:
        pipe(batch(1))
        assert not list(path.glob("fused.py.*"))
        pipe.prepare(batch=3)
        (waited,) = path.glob("fused.py.*")
        assert int(waited.suffix[1:]) == ([*pipe.pids] or [os.getpid()])[0]
