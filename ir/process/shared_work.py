"""A function of many items on several cores: in this process, and in copies of it."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import torch

MANY_NODES = 1_000  # of a graph, from which on it is worth a copy
MOST_PROCESSES = 4
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def shared_work(function: Callable[[_Item], _Result], items: Sequence[_Item], nodes: int) -> list[_Result]:
    """The result of a function for each item, in order; they are about a graph of so many `nodes`.

    Copies of this process compute some of them, where the graph is large, there are several cores and a copy is safe.
    The function changes nothing that others see but files, and its results can be pickled. Whatever a copy fails at is
    computed here, so that an error is raised as it is without copies.
    """
    is_shared = items and nodes >= MANY_NODES and _can_be_copied()
    count = min(len(items), _cores(), MOST_PROCESSES) if is_shared else 1
    results = dict[int, _Result]()
    copies = list[_Copy]()
    try:
        with suppress(OSError):  # without memory for a copy, say
            copies.extend(_Copy.of(function, items[k::count]) for k in range(1, count))
        results |= {i: function(items[i]) for i in range(0, len(items), count)}
        for k, copy in enumerate(copies, 1):
            results |= dict(zip(range(k, len(items), count), copy.results(), strict=False))
    finally:
        for copy in copies:
            copy.end()
    return [results[i] if i in results else function(item) for i, item in enumerate(items)]


def shared_calls(functions: Sequence[Callable[[], Any]], nodes: int) -> list[Any]:
    """The results of functions without arguments, in order, as `shared_work` computes them."""
    return shared_work(lambda function: function(), functions, nodes)


@dataclass
class _Copy:
    """A copy of this process that computes a function of some items."""

    pid: int
    pipe: int  # from which its results are read
    running: bool = True

    @classmethod
    def of(cls, function: Callable[[Any], Any], items: Sequence[Any]) -> _Copy:
        """A copy that begins at once.  Raises OSError where the system allows none."""
        read, write = os.pipe()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads: those of libraries are idle
                pid = os.fork()
        except OSError:
            os.close(read)
            os.close(write)
            raise
        if not pid:
            _compute(function, items, write)
        os.close(write)
        return cls(pid, read)

    def results(self) -> list[Any]:
        """The results of the items once all are there; none where it failed."""
        with open(self.pipe, "rb", closefd=False) as file:
            found = file.read()
        status = -1
        with suppress(ChildProcessError):  # somebody else has waited for it
            _, status = os.waitpid(self.pid, 0)
        self.running = False
        return [] if status else pickle.loads(found)

    def end(self) -> None:
        """Ends the process, unless its results were read."""
        os.close(self.pipe)
        if self.running:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


def _compute(function: Callable[[Any], Any], items: Sequence[Any], pipe: int) -> None:
    """The life of a copy: it writes its results to a pipe, and ends without a word, with status 0 if it has them."""
    try:
        gc.disable()  # what the copied process had is not for this one to free
        warnings.showwarning = _leave_to_parent
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        # On a new thread: the one that was copied may own threads of OpenMP, which were not.
        thread = Thread(target=_write_results, args=(function, items, pipe), daemon=True)
        thread.start()
        thread.join()
    finally:
        os._exit(1)


def _leave_to_parent(message: Warning | str, *_: Any, **__: Any) -> None:
    """Fail with a warning that would be shown: whoever shows it may wait for a thread that was not copied."""
    raise RuntimeError(str(message))


def _write_results(function: Callable[[Any], Any], items: Sequence[Any], pipe: int) -> None:
    with suppress(BaseException):
        found = pickle.dumps([function(item) for item in items])
        with open(pipe, "wb") as file:
            file.write(found)
        os._exit(0)
    os._exit(1)


def _can_be_copied() -> bool:
    """Whether a copy of this process can compute: no other thread could hold a lock, and no accelerator is in use."""
    others = {*threading.enumerate()} - {threading.current_thread()}
    return sys.platform == "linux" and not _uses_accelerator() and all(map(_draws, others))


def _uses_accelerator() -> bool:
    """Whether this process may have begun to use an accelerator; not every kind can tell."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        return False
    is_initialized: Callable[[], bool] | None = getattr(torch.get_device_module(accelerator), "is_initialized", None)
    return is_initialized is None or is_initialized()


def _draws(thread: Thread) -> bool:
    """Whether a thread draws progress on the terminal, and takes no lock but its library's own, which no copy takes."""
    return type(thread).__module__.startswith(("rich.", "tqdm."))


def _cores() -> int:
    """The cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
