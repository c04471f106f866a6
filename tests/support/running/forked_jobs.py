"""Jobs of torchrun, and Pythons, that are copies of a process that has imported torch, which takes two seconds in each.

The agent is torchrun's own, and ranks are as it starts them in all but that.  Where the end of the interpreter or the
end of the agent is tested, `jobs.run` starts new Pythons.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import psutil
import torch
from torch.distributed import run as launcher
from torch.distributed.elastic.multiprocessing.api import PContext
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

from runtime.distributed import sigterm
from tests.support.patience import PATIENCE
from tests.support.running.jobs import PREAMBLE, ROOT, Ended, environment, pids, torchrun, wait_gone

_CLOSE = PContext.close
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch.distributed.run", "runtime.pipeline", "runtime.distributed.bootstrap"])


def run(folder: Path, script: str, ranks: int, limit: float = PATIENCE) -> Ended:
    """As `jobs.run`."""
    with job(folder, script, ranks) as agent:
        ended = end_of(agent, folder, limit)
        wait_gone(folder)
    return ended


@contextmanager
def job(folder: Path, script: str, ranks: int) -> Iterator[BaseProcess]:
    """As `jobs.job`; what the job prints is in files of the folder."""
    (folder / "script.py").write_text(PREAMBLE + script)
    with agent(folder, torchrun(ranks, folder / "script.py", folder)) as process:
        try:
            yield process
        finally:
            for pid in pids(folder):
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGKILL)


def agent(folder: Path, command: Sequence[str], cwd: Path = ROOT) -> AbstractContextManager[BaseProcess]:
    """An agent of torchrun, started by a command, and what it prints in files of the folder."""
    _, _, _, *arguments = command
    return _running(_run_agent, folder, arguments, cwd)


def python(folder: Path, *arguments: object, cwd: Path = ROOT) -> Ended:
    """The end of `python ARGUMENTS`, which are `-c` and code, or `-m` and a module, and further ones."""
    with _running(_run_python, folder, [*map(str, arguments)], cwd) as process:
        return end_of(process, folder)


def end_of(process: BaseProcess, folder: Path, limit: float = PATIENCE) -> Ended:
    """The end of a process, and what it has printed into files of the folder."""
    process.join(limit)
    if process.exitcode is None:
        raise subprocess.TimeoutExpired(process.name, limit)
    out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return Ended(process.exitcode, out, err)


@contextmanager
def _running(target: Callable[..., None], folder: Path, *arguments: object) -> Iterator[BaseProcess]:
    with patch.dict(os.environ, environment()):  # of the server, if this is its first process
        process = _SERVER.Process(target=target, args=(folder, *arguments))
        process.start()
    try:
        yield process
    finally:
        if process.exitcode is None:
            process.kill()
        process.join()


class _Copy:
    """A process that is a copy of this one, with what torchrun's agent asks of a `Popen`."""

    def __init__(self, args: tuple[str, ...], env: Mapping[str, str], **_: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _end_after(lambda: _run_script(args, env))

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a copy", timeout)
            time.sleep(0.01)
        return status


def _run_agent(folder: Path, arguments: Sequence[str], cwd: Path) -> None:
    _begin(folder, cwd)
    with patch.object(subprocess_handler, "Popen", _Copy), patch.object(PContext, "close", _close):
        launcher.main(["--log-dir", str(folder / "logs"), *arguments])  # else it leaves a folder in /tmp


def _run_python(folder: Path, arguments: Sequence[str], cwd: Path) -> None:
    _begin(folder, cwd)
    installed = [place for place in sys.path if place.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = ["", str(ROOT), *installed]  # not what the tests have put there
    _end_after(lambda: _run(arguments))


def _begin(folder: Path, cwd: Path) -> None:
    """Begin a process of its own, which prints to files of a folder."""
    os.environ.update(environment())
    os.chdir(cwd)
    for name, at in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), at)
    torch.set_num_threads(1)


def _close(context: PContext, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
    """Torchrun's end of ranks: those that do not end by themselves, which we must kill, it kills too late here."""
    _CLOSE(context, death_sig, int(10 * PATIENCE))


def _run_script(command: tuple[str, ...], env: Mapping[str, str]) -> None:
    """What the command does, which is a Python with `-u` and a script or a module, in an environment."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sigterm.DELAY = 2.0  # seconds, in place of 5: so many tests wait for them
    torch.set_num_threads(1)  # makes torch's threads anew, which a copy lacks: several threads at once might fail to
    _run(command[command.index("-u") + 1 :])


def _run(arguments: Sequence[str]) -> None:
    """Run what follows `python -u`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    match arguments:
        case ["-c", code, *_]:
            sys.argv = ["-c", *arguments[2:]]
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        case ["-m", module, *_]:
            sys.argv = [*arguments[1:]]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case _:
            sys.argv = [*arguments]
            runpy.run_path(sys.argv[0], run_name="__main__")


def _end_after(call: Callable[[], None]) -> NoReturn:
    """End the process after a call, as Python ends."""
    atexit._clear()
    status = 0
    try:
        call()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
