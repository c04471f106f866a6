"""Scripts that torchrun starts in several processes, and what becomes of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[3]

# Each process writes its id to a file named after its rank, waits for the others, which may take long to import
# torch where others work, too, then runs the test's own lines.
PREAMBLE = """\
import os, signal, socket, sys, time
from pathlib import Path

import torch

from runtime import InputError, Pipeline, PipelineClosed, StageError

HERE, OUT = Path(sys.argv[1]), Path(sys.argv[1]) / "out"
RANK = int(os.environ["RANK"])
(HERE / f"pid{RANK}").write_text(str(os.getpid()))
while len(list(HERE.glob("pid*"))) < int(os.environ["WORLD_SIZE"]) and os.getppid() > 1:
    time.sleep(0.02)
X = torch.arange(8.0).reshape(2, 4)

"""


# A line that has each process take the others for processes of other hosts, which it reaches over gloo alone.
APART = "import runtime.distributed.rendezvous as found\nfound._memory_domain = lambda: os.environ['RANK']\n"


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str  # without what torchrun says itself

    def errors(self) -> list[str]:
        """The lines that say what went wrong."""
        return [line for line in self.err.splitlines() if line.startswith(("error: ", "runtime.errors."))]


@contextmanager
def job(folder: Path, script: str, ranks: int) -> Iterator[subprocess.Popen[str]]:
    """A running job.  When the block ends, nothing of it is left."""
    (folder / "script.py").write_text(PREAMBLE + script)
    command = torchrun(ranks, "--log-dir", folder / "logs", folder / "script.py", folder)
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            for pid in (process.pid, *pids(folder)):
                if psutil.pid_exists(pid):
                    os.kill(pid, 9)


def run(folder: Path, script: str, ranks: int, limit: float = PATIENCE) -> Ended:
    """Raises TimeoutExpired after LIMIT seconds.  Fails where a process outlives the job."""
    with job(folder, script, ranks) as process:
        out, err = process.communicate(timeout=limit)
        wait_gone(folder)
    return Ended(process.returncode, out, err)


def torchrun(ranks: int, *arguments: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return [*launcher, *map(str, arguments)]


def agents(hosts: int, *arguments: object) -> list[list[str]]:
    """The command for each of some hosts, which find each other by torchrun's own rendezvous: here over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = ["--nnodes", hosts, "--nproc-per-node", 1, "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    found += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", port]
    return [[sys.executable, "-m", "torch.distributed.run", *map(str, (*found, *arguments))]] * hosts


def pids(folder: Path) -> list[int]:
    """Of the ranks that have started."""
    return [int(text) for path in sorted(folder.glob("pid*")) if (text := path.read_text())]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.02)


def wait_gone(folder: Path) -> None:
    """Until all ranks have ended."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids(folder) if psutil.pid_exists(pid)], PATIENCE)
    assert not alive, f"still running: {alive}"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TORCH_CPP_LOG_LEVEL": "ERROR"}
