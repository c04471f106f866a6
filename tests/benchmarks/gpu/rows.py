"""One measurement in a process of its own, or in several: `python -m tests.benchmarks.gpu.rows NAME SECONDS`.

It ends after so many seconds at most.  The last line that is printed is a JSON table of what was measured: tokens a
second, or seconds.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from runtime import Pipeline
from runtime.manifest.manifest import Manifest
from runtime.stage.loader import load_stages
from tests.benchmarks.gpu import llama
from tests.benchmarks.gpu.batches import BATCH, LENGTHS, STREAM, Measured, seconds, tokens
from tests.benchmarks.gpu.peers import accelerate, one_gpu, pipelining


@contextmanager
def stages(**speed: Any) -> Iterator[Any]:
    """Ours: in the processes that torchrun started, or in this one."""
    if "RANK" in os.environ:
        with Pipeline.distributed(llama.STAGES, **speed) as pipe:
            yield pipe
        return
    with Pipeline.load(llama.STAGES, **speed) as pipe:
        yield pipe


def ours(**speed: Any) -> Measured:
    """Batches that drain come first, on GPUs as cool as the peer's are: a stream has them lower their clocks."""
    with stages(**speed) as pipe:
        return {} if pipe.rank else first_batch(pipe) | drained(pipe) | of_one_size(pipe) | of_other_sizes(pipe)


def ours_of_one_size(**speed: Any) -> Measured:
    """Without batches of other sizes, each of which is compiled anew."""
    with stages(**speed) as pipe:
        return {} if pipe.rank else first_batch(pipe) | of_one_size(pipe)


def first_batch(pipe: Any) -> Measured:
    ids = llama.ids(BATCH).cuda()
    started = time.perf_counter()
    pipe(ids)
    measured = {"first batch": time.perf_counter() - started}
    pipe.prepare(batch=BATCH, seq=llama.SEQ)
    return measured


def drained(pipe: Any) -> Measured:
    measured: Measured = {}
    for parts in (16, 64):
        step = partial(pipe, llama.ids(BATCH * parts).cuda(), microbatches=parts)
        step()
        measured[f"drained {parts}"] = tokens(parts) / statistics.median(seconds(step) for _ in range(3))
    return measured


def of_one_size(pipe: Any) -> Measured:
    ids, ahead = llama.ids(BATCH).cuda(), 4 * len(pipe.manifest.stages)

    def run(batches: int) -> None:
        for _ in pipe.map(repeat(ids, batches), in_flight=ahead):
            pass

    first = pipe(ids)
    run(ahead)
    measured = {"stream": tokens(STREAM) / seconds(lambda: run(STREAM))}
    came = [time.perf_counter() for _ in pipe.map(repeat(ids, STREAM + 2 * ahead), in_flight=ahead)]
    measured["full"] = tokens(STREAM) / (came[ahead + STREAM] - came[ahead])  # neither filling nor draining
    measured["alone"] = statistics.median(seconds(lambda: pipe(ids)) for _ in range(20))
    measured["difference"] = (pipe(ids).logits - first.logits).abs().max().item()  # of the first batch, again
    return measured


def of_other_sizes(pipe: Any) -> Measured:
    ids = {batch: llama.ids(batch).cuda() for batch in (1, BATCH)}
    ahead = 4 * len(pipe.manifest.stages)
    measured: Measured = {}

    def run_small(batches: int) -> None:
        for _ in pipe.map(repeat(ids[1], batches), in_flight=ahead):
            pass

    changing = [ids[BATCH][:, :length].contiguous() for length in LENGTHS]

    def run_changing() -> None:
        for _ in pipe.map(changing, in_flight=ahead):
            pass

    run_changing()
    measured["changing"] = BATCH * sum(LENGTHS) / statistics.median(seconds(run_changing) for _ in range(3))
    pipe.prepare(batch=1, seq=llama.SEQ)
    run_small(ahead)
    measured["small"] = 4 * STREAM * llama.SEQ / seconds(lambda: run_small(4 * STREAM))
    return measured


def busy(**speed: Any) -> Measured:
    """What each GPU does in a stream: seconds of a batch, between two batches, and from a stage's end to the next."""
    with stages(**speed) as pipe:
        if pipe.rank:
            return {}
        ids = llama.ids(BATCH).cuda()
        ahead = 4 * len(pipe.manifest.stages)
        changing = [ids[:, :length].contiguous() for length in LENGTHS]
        measured: Measured = {}
        for name, batches, in_flight in (
            ("full", [ids] * 64, ahead),
            ("changing", changing, ahead),
            ("one", [ids] * 9, 1),
        ):
            for _ in range(2):
                for _ in pipe.map(batches, in_flight=in_flight):
                    pass
            with pipe.trace() as trace:
                for _ in pipe.map(batches, in_flight=in_flight):
                    pass
            of_stage = [[run for run in trace.runs if run.stage == i] for i in range(len(pipe.manifest.stages))]
            for i, runs in enumerate(of_stage):
                measured[f"{name}: stage {i}"] = statistics.mean(run.ended - run.started for run in runs)
                if in_flight > 1:
                    gaps = [after.started - before.ended for before, after in pairwise(runs)][8:]
                    measured[f"{name}: between batches of {i}"] = statistics.mean(gaps)
                elif i:
                    hops = [there.started - here.ended for here, there in zip(of_stage[i - 1], runs, strict=True)]
                    measured[f"{name}: from {i - 1} to {i}"] = statistics.median(hops)
        return measured


def start(**speed: Any) -> Measured:
    """Seconds until the stages are loaded, and until the first batch is done."""
    ids = llama.ids(BATCH)
    started = time.perf_counter()
    with stages(**speed) as pipe:
        loaded = time.perf_counter()
        pipe(ids)
        return {"load": loaded - started, "load and first batch": time.perf_counter() - started}


def causal() -> Measured:
    """Seconds of a stage on one GPU, with the causal mask written out as models do, and as a flag of attention."""
    manifest = Manifest.read(llama.STAGES)
    device = torch.device("cuda:0")
    mask = torch.ones(llama.SEQ, llama.SEQ, dtype=torch.bool, device=device).tril()
    attention = nn.functional.scaled_dot_product_attention

    def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, is_causal: bool, scale: float) -> Any:
        return attention(query, key, value, attn_mask=mask, scale=scale)

    devices = [device] * len(manifest.stages)
    (stage,) = load_stages(llama.STAGES, manifest, devices, strict=False, indices=[1], checked=True)
    given = [
        torch.randn(BATCH, llama.SEQ, int(r.tensor.shape[-1]), dtype=torch.bfloat16, device=device)
        for r in manifest.programs[0].stages[1].receives
        if len(r.tensor.shape) == 3
    ]
    times: dict[Any, list[float]] = {attention: [], masked: []}
    with torch.no_grad():
        for _ in range(20):
            for way, took in times.items():
                nn.functional.scaled_dot_product_attention = way
                took.append(seconds(lambda: stage(given, {"batch": BATCH, "seq": llama.SEQ})))
    nn.functional.scaled_dot_product_attention = attention
    flag, written = (statistics.median(took[4:]) for took in times.values())
    return {"stage with is_causal": flag, "stage with the mask": written}


def two_hosts() -> Measured:
    """Under torchrun, where the first half of the ranks and the second may not share memory, as on two hosts."""
    from runtime.distributed import rendezvous

    half = int(os.environ["RANK"]) * 2 // int(os.environ["WORLD_SIZE"])
    rendezvous._memory_domain = lambda: f"host {half}"
    return ours_of_one_size()


REST = 3.0  # seconds after which a driver sets up GPUs as if nobody had used them


def loading() -> Measured:
    """Seconds to read all weights, and to load the stages, from the files as memory has them and from the disk.

    Beside what any processes take to use the GPUs at all, and safetensors by a thread for each GPU of a process; all
    on GPUs at rest.  Then where other processes have just used them, and where this one does.
    """
    files, devices = sorted(llama.STAGES.glob("*.safetensors")), range(torch.cuda.device_count())

    def read(path: Path) -> None:
        buffer = bytearray(1 << 24)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def forget(path: Path) -> None:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def set_up(index: int) -> None:
        torch.zeros(1, device=f"cuda:{index}")

    def threads(run: Callable[..., Any], *each: Any) -> None:
        with ThreadPoolExecutor(len(files)) as pool:
            list(pool.map(run, *each))

    def load(**options: Any) -> float:
        started = time.perf_counter()
        with stages(**options):
            return time.perf_counter() - started

    read_all = partial(threads, read, files)
    threads(forget, files)
    measured = {"read from the disk": seconds_of(read_all)}
    measured["read"] = statistics.median(seconds_of(read_all) for _ in range(3))
    time.sleep(REST)
    measured["GPUs set up by a process each"] = seconds_of_copies([partial(set_up, i) for i in devices])
    time.sleep(REST)
    to_gpus = partial(threads, load_file, files, [f"cuda:{i}" for i in devices])
    measured["safetensors.torch.load_file"] = seconds_of_copies([to_gpus])
    time.sleep(REST)
    measured["load"] = load()  # onto one GPU, by this process, which cannot be copied from then on
    measured["load, GPUs just used"] = load()
    threads(forget, files)
    time.sleep(REST)
    measured["load from the disk"] = load()
    for i in devices:
        set_up(i)
    measured["load, GPUs in use"] = load()
    measured["load on threads, GPUs in use"] = statistics.median(load(processes=False) for _ in range(3))
    return measured


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds of the host."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def seconds_of_copies(runs: Sequence[Callable[[], Any]]) -> float:
    """Seconds until copies of this process, which has used no GPU, have all run theirs; they end later."""
    context = multiprocessing.get_context("fork")
    done, leave = context.Semaphore(0), context.Event()

    def follow(run: Callable[[], Any]) -> None:
        run()
        done.release()
        leave.wait()

    started = time.perf_counter()
    copies = [context.Process(target=follow, args=(run,)) for run in runs]
    for copy in copies:
        copy.start()
    for _ in copies:
        done.acquire()
    took = time.perf_counter() - started
    leave.set()
    for copy in copies:
        copy.join()
    return took


ROWS: dict[str, Callable[[], Measured]] = {
    "one-gpu": lambda: one_gpu(compiled=False),
    "one-gpu-compiled": lambda: one_gpu(compiled=True),
    "accelerate": accelerate,
    "pipelining": pipelining,
    "ours": ours,
    "ours-threads": lambda: ours(processes=False),
    "ours-eager": lambda: ours(cuda_graphs=False),
    "ours-stay": lambda: ours(outputs="stay"),
    "ours-graphs": lambda: ours(cuda_graphs=True),
    "ours-compiled": lambda: ours_of_one_size(compile=True),
    "start": start,
    "start-compiled": lambda: start(compile=True),
    "causal": causal,
    "two-hosts": two_hosts,
    "busy": busy,
    "busy-eager": lambda: busy(cuda_graphs=False),
    "loading": loading,
}

if __name__ == "__main__":
    faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)  # says where a row hangs
    result = ROWS[sys.argv[1]]()
    if result:
        print("\n" + json.dumps(result), flush=True)
