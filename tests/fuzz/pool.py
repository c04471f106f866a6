"""Many seeds on several processes; one that hangs or dies is a finding, and another takes its place."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

import torch

from tests.fuzz.check import Verdict, check, reason_of
from tests.fuzz.generator import Program, generate
from tests.fuzz.minimise import minimise

LIMIT = 120.0  # seconds for a module
SMALLER = 600.0  # seconds to make a module with a fault smaller


@dataclass(frozen=True)
class Finding:
    """A module with a fault, as small as it was made."""

    seed: int
    verdict: Verdict
    source: str


class Worker:
    """A process that checks one module at a time."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, program: Program, smaller: bool = False) -> Verdict | Program:
        """What came of a module, or with `smaller` the smallest with the same fault."""
        self._connection.send((program, smaller))
        limit = SMALLER if smaller else LIMIT
        try:
            if self._connection.poll(limit):
                return self._connection.recv()
            verdict = Verdict("a hang", f"after {limit:.0f} seconds")
        except EOFError:
            self._process.join()
            verdict = Verdict("a dead process", f"exit code {self._process.exitcode}")
        self._process.kill()
        self._start()
        return program if smaller else verdict

    def close(self) -> None:
        self._process.kill()


def serve(connection: Connection) -> None:
    """Answer a parent until it is gone."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # torch's own warnings
    while True:
        try:
            program, smaller = connection.recv()
        except EOFError:
            return
        connection.send(smallest(program) if smaller else verdict_of(program))


def verdict_of(program: Program) -> Verdict:
    with TemporaryDirectory(prefix="fuzz-") as folder:
        file = Path(folder) / f"seed_{program.seed}.py"
        file.write_text(program.source)
        try:
            return check(file, Path(folder) / "out")
        except Exception as e:
            return Verdict("odd", f"{type(e).__name__}: {e}")


def smallest(program: Program) -> Program:
    """The module with as few statements as show a fault of the same kind."""
    known = fault_of(verdict_of(program))
    return minimise(program, lambda smaller: fault_of(verdict_of(smaller)) == known)


def fault_of(verdict: Verdict) -> tuple[str, str]:
    """What two modules with the same fault share."""
    return verdict.kind, "" if verdict.kind == "a difference" else reason_of(
        verdict.reason.partition(": ")[2] or verdict.reason
    )


def fuzz(seeds: Iterable[int], processes: int) -> Iterator[tuple[int, Verdict, Finding | None]]:
    """What came of each seed, as it comes, with a smaller module where there is a fault."""
    workers = SimpleQueue[Worker]()
    for _ in range(processes):
        workers.put(Worker())

    def one(seed: int) -> tuple[int, Verdict, Finding | None]:
        worker = workers.get()
        try:
            program = generate(seed)
            verdict = worker.ask(program)
            assert isinstance(verdict, Verdict)
            if not verdict.found:
                return seed, verdict, None
            small = worker.ask(program, smaller=True)
            assert isinstance(small, Program)
            return seed, verdict, Finding(seed, verdict, small.source)
        finally:
            workers.put(worker)

    with ThreadPoolExecutor(processes) as threads:
        for done in as_completed([threads.submit(one, seed) for seed in seeds]):
            yield done.result()
    for _ in range(processes):
        workers.get().close()
