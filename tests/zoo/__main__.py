"""Cut every model of the zoo, a progress line each, and write docs/coverage.md.

python -m tests.zoo                 all of them
python -m tests.zoo 'qwen*' bert    some of them; writes nothing
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from fnmatch import fnmatch
from queue import SimpleQueue
from threading import Timer
from time import perf_counter

from tests.zoo import KINDS, MODELS
from tests.zoo.measure import Result
from tests.zoo.table import COVERAGE, ROOT, coverage, outcome, recorded

FOUND = ROOT / "build/zoo.json"


class Worker:
    """A process that measures one model after another; a new one takes its place when it dies or hangs."""

    def __init__(self, timeout: float, command: Sequence[str] = (sys.executable, "-m", "tests.zoo.worker")) -> None:
        self._timeout = timeout
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def measure(self, name: str) -> Result:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        start = perf_counter()
        alarm = Timer(self._timeout, process.kill)
        alarm.start()
        try:
            print(name, file=process.stdin, flush=True)
            answer = process.stdout.readline()
        finally:
            alarm.cancel()
        if answer:
            return Result(**json.loads(answer))
        late = perf_counter() - start >= self._timeout
        self.close()
        return Result(
            name,
            failure=f"took more than {self._timeout:g} s" if late else f"its process died, status {process.returncode}",
        )

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


def measured(names: Sequence[str], jobs: int, timeout: float) -> Iterator[Result]:
    """The results as they come."""
    workers: SimpleQueue[Worker] = SimpleQueue()
    for _ in range(jobs):
        workers.put(Worker(timeout))

    def one(name: str) -> Result:
        worker = workers.get()
        try:
            return worker.measure(name)
        finally:
            workers.put(worker)

    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(one, name) for name in names]):
            yield future.result()
    for _ in range(jobs):
        workers.get().close()


def _found() -> dict[str, Result]:
    """What earlier runs found here."""
    return {r["name"]: Result(**r) for r in json.loads(FOUND.read_text())} if FOUND.exists() else {}


def _keep(found: Mapping[str, Result]) -> None:
    FOUND.parent.mkdir(exist_ok=True)
    FOUND.write_text(json.dumps([asdict(result) for result in found.values()], indent=1))


def _longest_first(names: Sequence[str], before: Mapping[str, Result]) -> list[str]:
    """The models by the seconds that they took before; those that did not end are the first."""
    return sorted(names, key=lambda n: -before[n].export_seconds if n in before and before[n].nodes else float("-inf"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description="Cut many models in three.")
    parser.add_argument("names", nargs="*", help="models, or patterns of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one model")
    parser.add_argument("--write", action="store_true", help="write docs/coverage.md after a run of some models too")
    options = parser.parse_args()
    names = [n for n in MODELS if not options.names or any(fnmatch(n, pattern) for pattern in options.names)]
    before = recorded(COVERAGE.read_text())  # the table may have been written elsewhere
    start, found = perf_counter(), _found()
    for i, result in enumerate(measured(_longest_first(names, before), options.jobs, options.timeout)):
        found[result.name] = result
        print(f"{i + 1:4}/{len(names)}  {result.name:24} {outcome(result)}", flush=True)
        _keep(found)
    good = sum(found[name].good for name in names)
    print(f"{good} of {len(names)} return what the uncut model does, bit for bit; {perf_counter() - start:.0f} s")
    if options.write or not options.names:
        known = before | found
        told = {name: known[name] for name in MODELS if name in known}
        COVERAGE.write_text(coverage(KINDS, told, COVERAGE.read_text()))
    return 0 if all(found[name].good or found[name].known for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
