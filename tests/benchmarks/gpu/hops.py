"""A hop from one GPU to the next, on threads and between processes: `python -m tests.benchmarks.gpu.hops`.

Two stages that each start one kernel, so that little but the hop takes time.  Then a process is killed in the middle of
a stream, and started again.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from runtime import Pipeline, StageLost
from runtime.manifest.manifest import Symbol
from tests.support.artifacts.by_hand import Part, tensor, write

SIZES = (1 << 10, 1 << 20, 1 << 22)  # float32 numbers


def artifact(folder: Path) -> Path:
    last = torch.cuda.device_count() - 1
    first = Part("return (x + 1,)", {"x": None}, {"h": ((1,), ())}, device="cuda:0")
    second = Part("return (h[:1] * 2,)", {"h": 0}, {"y": ((), (0,))}, device=f"cuda:{last}")
    return write(folder, [first, second], outputs=[tensor("y", 1, 4)], symbols={"batch": Symbol(1, None, 2)})


def microseconds(pipe: Pipeline, x: torch.Tensor, count: int = 200) -> tuple[float, float, float]:
    """The median and the 90th percentile of a call, and the time of a batch in a stream."""
    took = []
    for i in range(count + 20):
        started = time.perf_counter()
        pipe(x)
        if i >= 20:
            took.append(time.perf_counter() - started)
    started = time.perf_counter()
    list(pipe.map([x] * count, in_flight=8))
    stream = (time.perf_counter() - started) / count
    return statistics.median(took) * 1e6, statistics.quantiles(took, n=10)[-1] * 1e6, stream * 1e6


def main() -> None:
    with TemporaryDirectory() as folder:
        path = artifact(Path(folder) / "out")
        for processes in (False, True):
            started = time.perf_counter()
            with Pipeline.load(path, processes=processes) as pipe:
                print(f"processes={processes}: loaded in {time.perf_counter() - started:.2f} s", flush=True)
                for size in SIZES:
                    x = torch.ones(size // 4, 4, device="cuda:0")
                    alone, slow, stream = microseconds(pipe, x)
                    mib = size * 4 / 2**20
                    print(f"  {mib:8.3f} MiB: alone {alone:6.0f} us, p90 {slow:6.0f}, stream {stream:6.0f}", flush=True)
                memory = ["nvidia-smi", "--query-gpu=index,memory.used", "--format=csv,noheader"]
                used = subprocess.run(memory, capture_output=True, text=True).stdout
                print(f"  {'; '.join(used.splitlines())}", flush=True)
                if processes:
                    lose(pipe)


def lose(pipe: Pipeline) -> None:
    """Kill the process of the last stage in the middle of a stream, and start it again."""
    x = torch.ones(1 << 20, 4, device="cuda:0")
    futures = [pipe.submit(x) for _ in range(50)]
    futures[5].result()
    victim = max(pids := pipe.pids, key=lambda pid: pids[pid])
    started = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    lost = sum(isinstance(future.exception(60), StageLost) for future in futures)
    print(f"  killed: {lost} of 50 lost after {time.perf_counter() - started:.2f} s", flush=True)
    started = time.perf_counter()
    pipe.restart()
    assert torch.equal(pipe(x).cpu(), torch.full((1, 4), 4.0))
    print(f"  restarted, and right, after {time.perf_counter() - started:.2f} s", flush=True)


if __name__ == "__main__":
    main()
