"""A decoder at the speed of its weights: `python3 -m tests.benchmarks.gpu.tokens PIECE ...`.

A Llama-like model of 7.2 billion parameters in bfloat16 (`--sizes 70b`: 70 billion), whose random weights are made on
the devices, continues texts.  Each piece prints what it took beside its limit: the weights, keys and values
that a step reads, at the bandwidth with which this device copies.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from runtime import Pipeline
from runtime.manifest.digests import file_hash
from tests.benchmarks.gpu import decoder

FOLDER = Path(__file__).resolve().parents[3] / "build/benchmarks/tokens"
IN_JOB = "LOCAL_RANK" in os.environ  # torchrun started this
RANDOM = '''

def read_weights(stage, path, device, share):
    """Give a stage made on the meta device random weights, and zeros as pools: all of them as the first share."""
    if share:
        return
    parameters = dict(stage.named_parameters())
    for name, empty in [*parameters.items(), *stage.named_buffers()]:
        made = torch.zeros(empty.shape, dtype=empty.dtype, device=device)
        if name.endswith("inv_freq"):
            made = 10000.0 ** (-torch.arange(len(empty), device=device) / len(empty))
        elif name.endswith("_scale"):
            made.fill_(0.01)
        elif name in parameters and empty.dtype == torch.int32:
            made.random_(-(2**31), 2**31 - 1)
        elif name in parameters and "norm" in name:
            made.fill_(1)
        elif name in parameters and empty.dtype.itemsize == 1:
            made = torch.randn(empty.shape, dtype=torch.bfloat16, device=device).to(empty.dtype)
        elif name in parameters:
            made.normal_(std=0.02)
        made = nn.Parameter(made, False) if name in parameters else made
        torch.utils.swap_tensors(empty, made)
'''


@dataclass(frozen=True)
class Setup:
    """The artifact, how it is loaded, and the limit of a step."""

    sizes: str
    layers: int
    stages: int
    options: tuple[tuple[str, Any], ...]
    bandwidth: float  # bytes a second that one device copies, read and written
    attention: str = ""  # the compiler's --attention; "" leaves it to it

    @property
    def folder(self) -> Path:
        return FOLDER / f"{self.sizes}-{self.layers}-{self.stages}{self.attention and '-'}{self.attention}"

    def load(self) -> Pipeline:
        if not (self.folder / "manifest.json").exists():
            _compile(self)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if IN_JOB:
                return Pipeline.distributed(self.folder, **dict(self.options))
            return Pipeline.load(self.folder, **dict(self.options))

    def limit(self, rows: int, length: int) -> float:
        """Seconds of a step of so many rows of a length, on all devices one after the other."""
        sizes = decoder.NAMED[self.sizes]
        return (sizes.weight_bytes(self.layers) + rows * length * sizes.key_bytes(self.layers)) / self.bandwidth


def _compile(setup: Setup) -> None:
    """An artifact without weights, whose stage files make random ones."""
    command = [sys.executable, "-m", "passes.compile", decoder.__file__, "-o", str(setup.folder), "--weights", "none"]
    command += ["--generate", "--max-length", "4096", "--tokens", "300000", "--stages", str(setup.stages)]
    command += ["--attention", setup.attention] if setup.attention else []
    subprocess.run(command, check=True, env=decoder.environment(setup.sizes, setup.layers))
    make_random(setup.folder)


def make_random(folder: Path) -> None:
    """Have the stage files of an artifact make random weights, quantized ones too, in place of reading them."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for file in folder.glob("stage_*.py"):
        file.write_text(file.read_text() + RANDOM)  # the later of two definitions counts
        manifest["files"][file.name] = file_hash(file)
    for stage in manifest["stages"]:
        (folder / stage["weights"]).touch()
    path.write_text(json.dumps(manifest))


def bandwidth() -> float:
    """Bytes a second that a device copies: read and written."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda:0")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), 20)


def seconds(run: Callable[[], Any], count: int = 1) -> float:
    """Those of one of `count` runs on end on the first device, after one that does not count."""
    run()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(count):
        run()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / count


def prompt(length: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, decoder.VOCABULARY) for _ in range(length)]


def steps(pipe: Pipeline, rows: int, length: int, new: int, seed: int) -> tuple[float, float]:
    """Seconds until all of `rows` texts have a first token, and those of a step from there until the first one ends.

    The last text's first tokens do not count, which may have been there before; without others, the step is 0.
    """
    started = time.perf_counter()
    begun = [pipe.start(prompt(length, seed + i), max_new_tokens=new) for i in range(rows)]
    for one in begun:
        next(iter(one))
    first = time.perf_counter()
    read: list[float] = []
    for _ in begun[-1]:
        read.append(time.perf_counter())
        if begun[0].done:
            break
    for one in begun:
        one.result()
    read = read[8:]
    return first - started, (read[-1] - read[0]) / (len(read) - 1) if len(read) > 1 else 0.0


def rows_of(pipe: Pipeline, setup: Setup, rows: int, groups: int = 1, length: int = 1000) -> list[str]:
    """The time of a step of texts of one length, which the stages compute in so many groups at once."""
    new = 128 + 4 * rows  # while others are prefilled, the first texts go on
    took = [steps(pipe, rows, length, new, 10_000 * (i + 1)) for i in range(5 if rows == 1 else 3)]
    print("runs of", " ".join(f"{step * 1e3:.2f}" for _, step in took), "ms a step", flush=True)
    first, step = min(took, key=lambda pair: pair[1])
    limit = setup.limit(rows // groups, length + new // 2)
    rate = f"{rows / step:,.0f} tokens/s"
    text = f"{rows} of {length}: {step * 1e3:.2f} ms a step, {step / limit:.2f} times the limit of {limit * 1e3:.2f}"
    return [f"{text}; {rate}; all have a token after {first * 1e3:.0f} ms"]


def predicted(pipe: Pipeline, setup: Setup) -> list[str]:
    """The plan's tokens a second of texts of half the longest length, beside the measured ones."""
    plan = {one["texts"]: one["tokens_per_second"] for one in pipe.manifest.plan["decoding"]}
    half = pipe.manifest.generation.max_length // 2
    for rows in (1, 4, 16, 64):
        new = 64 + 6 * rows
        rate = rows / min(steps(pipe, rows, half - new // 2, new, seed * rows)[1] for seed in (1000, 2000))
        told = f"{plan[rows]:,.0f} predicted, {rate:,.0f} measured: {plan[rows] / rate - 1:+.0%}"
        print(f"{rows} of {half}: tokens/s {told}", flush=True)
    return []


MIXED = [random.Random(i).randint(200, 2000) for i in range(128)]  # the tokens of prompts
NEW = 160  # tokens that each of these texts gets


def mixed(pipe: Pipeline, setup: Setup) -> list[str]:
    """Texts of 200 to 2,000 prompt tokens, all there at the start; the first time, graphs are recorded."""
    _all_at_once(pipe, 3)
    return []


def _all_at_once(pipe: Pipeline, times: int) -> float:
    """The new tokens a second of the best of several times."""
    rates: list[float] = []
    for seed in range(77_000, 77_000 + 1000 * times, 1000):
        started = time.perf_counter()
        begun = [pipe.start(prompt(n, seed + i), max_new_tokens=NEW) for i, n in enumerate(MIXED)]
        for one in begun:
            one.result()
        took = time.perf_counter() - started
        rates.append(len(MIXED) * NEW / took)
        texts = f"{len(MIXED)} texts of {sum(MIXED):,} tokens, {NEW} new each"
        print(f"{texts}: {took:.2f} s, {rates[-1]:,.0f} new tokens/s", flush=True)
    return max(rates)


def arriving(pipe: Pipeline, setup: Setup) -> list[str]:
    """The texts of `mixed`, which arrive at random at 0.7 of the rate at which the stages wrote all at once."""
    rate, draw = 0.7 * _all_at_once(pipe, 2) / NEW, random.Random(0)
    alone = {n: min(steps(pipe, 1, n, 2, 3_000_000 + 10 * n + i)[0] for i in range(4)) for n in range(250, 2001, 250)}
    readers: list[threading.Thread] = []
    waited: list[float] = []

    def read(length: int, seed: int) -> None:
        begun, started = pipe.start(prompt(length, seed), max_new_tokens=NEW), time.perf_counter()
        next(iter(begun))
        waited.append((time.perf_counter() - started) / alone[max(round(length / 250), 1) * 250])
        begun.result()

    started = time.perf_counter()
    for i, n in enumerate(MIXED):
        readers.append(threading.Thread(target=read, args=(n, 88_000 + i)))
        readers[-1].start()
        time.sleep(draw.expovariate(rate))
    arrived = time.perf_counter() - started
    for reader in readers:
        reader.join()
    took = time.perf_counter() - started
    asked = f"{len(MIXED) * NEW / arrived:,.0f} new tokens/s"
    told = f"arriving at {asked} for {arrived:.1f} s, all written after {took:.1f} s"
    return [f"{told}; first tokens after {statistics.median(waited):.2f} times a prefill alone (median)"]


def first_token(pipe: Pipeline, setup: Setup, length: int = 2000) -> list[str]:
    """Seconds until the first token of a text that is alone."""
    took = [steps(pipe, 1, length, 2, 5_000 + i)[0] for i in range(8)]
    best = statistics.median(took[3:])
    return [f"first token of {length}: {best * 1e3:.1f} ms, {length / best:,.0f} prompt tokens/s"]


def profile(pipe: Pipeline, setup: Setup, rows: int = 1) -> list[str]:
    """What the device does in steps of texts of 1,000: kernels a step, the time that it is busy, what takes most."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    steps(pipe, rows, 1030, 24, 1000)
    begun = [pipe.start(prompt(1030, 9_000 + i), max_new_tokens=120) for i in range(rows)]
    while min(len(one.steps) for one in begun) < 20:
        time.sleep(0.001)
    before = len(begun[0].steps)
    with recorded(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        time.sleep(0.2)
        count = len(begun[0].steps) - before
    for one in begun:
        one.cancel()
    return _summary(trace, max(count, 1))


def _summary(trace: Any, count: int) -> list[str]:
    """Of a trace of so many steps, unless it tells how many graphs were launched."""
    events: list[Any] = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    if not spans:
        return ["no kernel was recorded"]
    busy, end = 0.0, spans[0][0]
    for start, stop in spans:
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    whole = spans[-1][1] - spans[0][0]
    count = sum(e.name == "cudaGraphLaunch" for e in trace.events()) or count
    lines = [f"{count} steps in {whole / 1e3:.1f} ms: {len(spans) / count:.0f} kernels a step, busy {busy / whole:.0%}"]
    for kind, table in (("device", events), ("host", [e for e in trace.events() if e.name.startswith("cuda")])):
        sums: dict[str, list[float]] = {}
        for e in table:
            sums.setdefault(e.name[:90], []).append(e.time_range.end - e.time_range.start)
        for name, took in sorted(sums.items(), key=lambda pair: -sum(pair[1]))[:12]:
            lines.append(f"  {kind} {sum(took) / count:8.1f} us, {len(took) / count:6.1f} times a step: {name}")
    return lines


PIECES: dict[str, Callable[[Pipeline, Setup], list[str]]] = {
    "one": lambda pipe, setup: rows_of(pipe, setup, 1),
    "eight": lambda pipe, setup: rows_of(pipe, setup, 8),
    "sixteen": lambda pipe, setup: rows_of(pipe, setup, 16),
    "many": lambda pipe, setup: rows_of(pipe, setup, 32),
    "groups": lambda pipe, setup: rows_of(pipe, setup, 8 * setup.stages, setup.stages),
    "mixed": mixed,
    "arriving": arriving,
    "predicted": predicted,
    "first": first_token,
    "profile": profile,
    "profile-many": lambda pipe, setup: profile(pipe, setup, 32),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.gpu.tokens")
    parser.add_argument("pieces", nargs="+", choices=PIECES)
    parser.add_argument("--sizes", choices=decoder.NAMED, default="7b")
    parser.add_argument("--layers", type=int, help="default: those of the sizes")
    parser.add_argument("--stages", type=int, default=torch.cuda.device_count())
    parser.add_argument("--attention", default="", help="the compiler's --attention")
    parser.add_argument("--options", default="{}", help="those of Pipeline.load, as JSON")
    given = parser.parse_args(argv)
    options = json.loads(given.options)
    layers = given.layers or decoder.NAMED[given.sizes].layers
    setup = Setup(given.sizes, layers, given.stages, tuple(options.items()), bandwidth(), given.attention)
    torch.cuda.empty_cache()
    name = f"{given.stages} {torch.cuda.get_device_name()}, {given.sizes}, {layers} layers, {options}"
    print(f"{name}: copies {setup.bandwidth / 1e12:.2f} TB/s" + ", under torchrun" * IN_JOB, flush=True)
    with setup.load() as pipe:  # once: what is recorded, or compiled, serves all pieces
        for piece in given.pieces if pipe.rank == 0 else ():
            started = time.perf_counter()
            lines = PIECES[piece](pipe, setup)
            print(*lines, f"({piece}, {time.perf_counter() - started:.0f} s)", sep="\n", flush=True)


if __name__ == "__main__":
    main()
