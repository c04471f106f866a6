"""Processes of a pipeline that raise, die, hang or never come: all end in time, with one message that says why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.artifacts.by_hand import Part, write
from tests.support.patience import PATIENCE
from tests.support.running import jobs
from tests.support.running.forked_jobs import job, run
from tests.support.running.jobs import Ended, wait_for, wait_gone

pytestmark = pytest.mark.slow

# Writes each result to a file before it asks for the next.
STREAM = """\
with Pipeline.distributed(OUT, timeout=TIMEOUT) as pipe:
    if RANK == 0:
        with open(HERE / "found", "w") as found:
            for y in pipe.map(torch.full((1, 4), float(n)) for n in range(100)):
                print(y[0, 0].item(), file=found, flush=True)
"""


def stages(folder: Path, fault: str, of: int = 1, count: int = 3) -> None:
    """y = x + COUNT over so many stages, with a FAULT in one of them when x is 5 in the first."""
    names = ["x", *"abcdefg"[: count - 1], "y"]
    parts: list[Part] = []
    for i in range(count):
        lines = ["import os, signal", f"if {names[i]}[0, 0] == {5 + i}:", f"    {fault}"] if i == of else []
        body = "\n".join([*lines, f"return ({names[i]} + 1,)"])
        sent = ((), (0,)) if i == count - 1 else ((i + 1,), ())
        parts.append(Part(body, {names[i]: i - 1 if i else None}, {names[i + 1]: sent}))
    write(folder / "out", parts)


def check_prefix(folder: Path, limit: int = 5, count: int = 3) -> None:
    """What came out before the fault is right, and nothing came out after it."""
    found = [float(line) for line in (folder / "found").read_text().splitlines()]
    assert found == [float(n + count) for n in range(len(found))]
    assert len(found) <= limit


def end(folder: Path, timeout: float, ranks: int = 3) -> Ended:
    ended = run(folder, f"TIMEOUT = {timeout}\n{STREAM}", ranks)
    assert ended.status == 1, ended.err
    return ended


@pytest.mark.parametrize("of", [1, 2])
def test_a_killed_process(tmp_path: Path, of: int) -> None:
    stages(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", of)
    ended = end(tmp_path, timeout=600)
    pid = (tmp_path / f"pid{of}").read_text()
    (message,) = ended.errors()
    assert message.startswith(f"runtime.errors.StageError: stage {of} (cpu) raised ConnectionError: rank {of} ")
    assert f"(process {pid} on " in message
    assert message.endswith("ended before the pipeline was closed")
    check_prefix(tmp_path)


def test_rank_0_is_killed(tmp_path: Path) -> None:
    stages(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)", of=0)
    ended = end(tmp_path, timeout=600)
    (message,) = ended.errors()
    assert message.startswith("error: stage 0 (cpu) raised ConnectionError: rank 0 ")
    check_prefix(tmp_path)


def test_a_stage_that_hangs(tmp_path: Path) -> None:
    stages(tmp_path, "time.sleep(600)")
    ended = end(tmp_path, timeout=4)
    message = "stage 1 (cpu) raised TimeoutError: it is busy with one batch for more than 4 s"
    assert ended.errors() == [f"runtime.errors.StageError: {message}"]
    check_prefix(tmp_path)


@pytest.mark.parametrize("of", [0, 2])
def test_a_process_that_is_stopped(tmp_path: Path, of: int) -> None:
    stages(tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)", of)
    ended = end(tmp_path, timeout=4)
    (message,) = ended.errors()
    assert f"stage {of} (cpu) raised ConnectionError: rank {of} " in message
    assert message.endswith("gave no sign of life for 4 s")
    check_prefix(tmp_path, limit=99)  # a process that stops itself may go on for a moment


def test_a_process_that_never_comes(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    ended = run(tmp_path, "if RANK == 2:\n    time.sleep(600)\nPipeline.distributed(OUT, timeout=3)", ranks=3)
    assert ended.status == 1
    assert ended.errors() == ["runtime.errors.DistributedError: rank 2 (stage 2) did not arrive within 3 s"]


def test_a_stage_that_cannot_be_loaded(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    (tmp_path / "out" / "stage_2.safetensors").write_bytes(b"")
    ended = end(tmp_path, timeout=600)
    (message,) = [line for line in ended.err.splitlines() if "ManifestError: " in line and "cannot read" in line]
    assert message.startswith("runtime.errors.ManifestError: stage_2.py cannot read ")


def test_a_stage_that_does_not_come_to_an_end_of_loading(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    path = tmp_path / "out" / "stage_1.py"
    path.write_text(path.read_text() + "\ntime.sleep(600)\n")
    ended = end(tmp_path, timeout=3)
    (message,) = ended.errors()
    assert message.endswith("did not load within 3 s")
    assert "stage 1 (cpu) raised ConnectionError: rank 1 " in message


def test_another_rank_whose_script_raises(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    script = "if RANK == 1:\n            raise ValueError('mine')\n        time.sleep(1)\n        pipe(X)"
    ended = run(tmp_path, f"with Pipeline.distributed(OUT, timeout=600) as pipe:\n        {script}", ranks=3)
    assert ended.status == 1
    assert "ValueError: mine" in ended.err


def test_the_parent_is_killed(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    script = """\
with Pipeline.distributed(OUT, timeout=600) as pipe:
    (HERE / f"ready{RANK}").touch()
    if RANK == 0:
        while True:
            pipe(X)
"""
    with job(tmp_path, script, 3) as process:
        for rank in range(3):
            wait_for(tmp_path / f"ready{rank}")
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(PATIENCE)
        wait_gone(tmp_path)
        err = (tmp_path / "stderr").read_text()
    # A call that came too late adds to the one message that the pipeline is closed.
    messages = [line for line in err.splitlines() if line.startswith("runtime.errors.StageError")]
    assert len(messages) == 1, err
    assert messages[0].endswith("is alone: torchrun, which started it, ended")


def test_rank_0_leaves_in_the_middle(tmp_path: Path) -> None:
    stages(tmp_path, "pass")
    script = """\
with Pipeline.distributed(OUT, timeout=600) as pipe:
    if RANK == 0:
        futures = [pipe.submit(X) for _ in range(50)]
for future in futures if RANK == 0 else []:
    try:
        assert torch.equal(future.result(), X + 3)
    except PipelineClosed:
        pass
print("left")
"""
    ended = run(tmp_path, script, ranks=3)
    assert (ended.status, ended.out.count("left")) == (0, 3), ended.err


def test_a_pipeline_that_nobody_closes(tmp_path: Path) -> None:
    stages(tmp_path, "pass", count=2)
    script = (
        "pipe = Pipeline.distributed(OUT, timeout=600)\nif RANK:\n    pipe.close()\nelse:\n    print(pipe(X).sum())"
    )
    ended = jobs.run(tmp_path, script, ranks=2)
    assert (ended.status, ended.out) == (0, "tensor(44.)\n"), ended.err
