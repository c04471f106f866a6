"""Starting a process for stages: a copy of this one, which has imported all, where that is safe; else a new Python."""

from __future__ import annotations

import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO, TextIOWrapper
from math import inf
from pathlib import Path
from threading import Lock, Thread
from typing import Protocol
from weakref import WeakSet

import torch

from runtime.device.kinds import kind_of
from runtime.distributed.exit import kill, kill_group
from runtime.processes import member
from runtime.processes.message_socket import MessageSocket

QUIET: WeakSet[Thread] = WeakSet()  # threads that hold no lock which a copy without them would wait for
COPIED = 1e9  # bytes of this process's own memory up to which it is copied: a copy holds what this one lets go


class Started(Protocol):
    """A child of this process."""

    @property
    def pid(self) -> int: ...

    def wait(self, timeout: float | None = None, /) -> int:
        """The exit status; negative for a signal.  Raises TimeoutExpired after `timeout` seconds."""
        ...


@dataclass
class Fork:
    """A child of this process that is a copy of it."""

    pid: int
    _status: int | None = None
    _waiting: Lock = field(default_factory=Lock)

    def wait(self, timeout: float | None = None, /) -> int:
        started = time.monotonic()
        while (status := self._poll()) is None:
            if timeout is not None and time.monotonic() - started > timeout:
                raise subprocess.TimeoutExpired("a copy of this process", timeout)
            time.sleep(0.005)
        return status

    def _poll(self) -> int | None:
        with self._waiting:
            if self._status is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # somebody else has waited for it
                    pid, status = self.pid, 0
                self._status = os.waitstatus_to_exitcode(status) if pid else None
            return self._status


def start_member(end: MessageSocket, device: torch.device, threads: int, ahead: Callable[[], object] = bool) -> Started:
    """A process that follows the orders that come by the `end` of a connection, which is closed here.

    `device`: that the process will use; `threads`: of the CPU, for one operator; `ahead`: what a copy of this process
    begins before it tries the device, which takes a second.
    """
    command = _new_python(end.fileno())
    environment = {**dict(kind_of(device).process_variables), **os.environ, "OMP_NUM_THREADS": str(threads)}
    if can_be_copied():
        with suppress(OSError, ValueError):
            sys.stdout.flush()  # or the copy would print it again
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of libraries are idle
            pid = os.fork()
        if not pid:
            _continue(end.fileno(), device, ahead, command, environment)
        started: Started = Fork(pid)
    else:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[end.fileno()],
            start_new_session=True,  # Ctrl-C is for the owner, which ends the others
            env=environment,
        )
    end.forget()
    return started


def can_be_copied() -> bool:
    """Whether a copy of this process would work.

    It has no other thread that could hold a lock, little memory, and has not used an accelerator.
    """
    accelerator = torch.accelerator.current_accelerator()
    is_used = accelerator is not None and torch.get_device_module(accelerator).is_initialized()
    others = {*threading.enumerate()} - {*QUIET, threading.current_thread()}
    return sys.platform == "linux" and not others and not is_used and _own_memory() <= COPIED


def _own_memory() -> float:
    """Bytes of memory that belong to no file; without limit where the system does not tell."""
    try:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    except OSError:
        return inf
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _new_python(descriptor: int) -> list[str]:
    path = f"import sys\nsys.path[:] = {sys.path!r}\n"
    script = f"{path}from {member.__name__} import main\nmain({descriptor})"
    return [sys.executable, "-u", "-c", script]  # -u: it ends at once, without flushing what it printed


def _continue(
    descriptor: int, device: torch.device, ahead: Callable[[], object], command: list[str], environment: dict[str, str]
) -> None:
    """The rest of a copy's life.  It becomes a new Python if the device's driver was used before, and works no more."""
    try:
        os.environ.update(environment)
        gc.freeze()  # what the copied process had is not for this one to end
        os.setsid()
        _forget_files(descriptor)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        sys.stdout, sys.stderr = (TextIOWrapper(FileIO(i, "w", closefd=False), write_through=True) for i in (1, 2))
        ahead()
        if not _works(device):
            os.set_inheritable(descriptor, True)
            os.execve(command[0], command, environment)
        # On a new thread: the one that was copied may own threads of OpenMP, which were not.
        thread = Thread(target=_follow, args=(descriptor,))
        thread.start()
        thread.join()
    finally:
        kill(os.getpid())


def _follow(descriptor: int) -> None:
    try:
        member.main(descriptor)
    except BaseException:
        traceback.print_exc()
    kill_group(os.getpid())


def _works(device: torch.device) -> bool:
    try:
        torch.zeros(1, device=device)
    except RuntimeError:
        return False
    return True


def _forget_files(kept: int) -> None:
    """Let go of what the copied process has open; the numbers stay taken, as its objects may close them later."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the one that lists them
            if number not in (1, 2, kept, null) and not stat.S_ISCHR(os.fstat(number).st_mode):  # drivers have those
                os.dup2(null, number)
