"""Two stages in processes that the pipeline starts by itself, beside the uncut model on one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from ir.sources import read_source
from passes.compilation.api import compile_model
from tests.benchmarks.report import Table
from tests.support.running.jobs import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ASKED = 1.85
TURNS = 2

MODEL = """\
import torch
from transformers import GPT2Config, GPT2LMHeadModel

def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16, use_cache=False)).eval()

example_inputs = {"input_ids": torch.zeros(1, 64, dtype=torch.int64)}
"""

BATCHES = """\
import json
from time import perf_counter, process_time

torch.set_num_threads(1)
torch.manual_seed(0)
WARM, COUNT = 3, 40
batches = [{"input_ids": torch.randint(50257, (1, 64))}] * (WARM + COUNT)

"""

UNCUT = """\
import runpy
model = runpy.run_path(str(HERE / "model.py"))["model"]()
with torch.no_grad():
    for batch in batches[:WARM]:
        model(**batch)
    start, begin = perf_counter(), process_time()
    for batch in batches[WARM:]:
        model(**batch)
    print(json.dumps({"wall": perf_counter() - start, "cpu": process_time() - begin}))
"""

CUT = """\
import psutil

def used():
    return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pipe.pids]

with Pipeline.load(OUT) as pipe:
    list(pipe.map(batches[:WARM]))
    start, begin = perf_counter(), used()
    for y in pipe.map(batches[WARM:], in_flight=4):
        pass
    wall = perf_counter() - start
    print(json.dumps({"wall": wall, "cpu": max(b - a for a, b in zip(begin, used()))}))
"""


class Seconds(NamedTuple):
    """Of a stream of 40 batches: those that passed, and those that the busiest process computed."""

    wall: float
    cpu: float


def measure(folder: Path, script: str) -> Seconds:
    ended = run(folder, BATCHES + script, 1, limit=500)
    assert ended.status == 0, ended.err
    for path in folder.glob("pid*"):
        path.unlink()
    return Seconds(**json.loads(ended.out.splitlines()[-1]))


def measure_together(folders: Sequence[Path]) -> Seconds:
    """The slower of two uncut models at once, each on one thread: what the cores give where both compute."""
    with ThreadPoolExecutor(len(folders)) as pool:
        done = [*pool.map(lambda folder: measure(folder, UNCUT), folders)]
    return Seconds(*map(max, zip(*done, strict=True)))


def cut(folder: Path) -> None:
    (folder / "model.py").write_text(MODEL)
    source = read_source(str(folder / "model.py"))
    compile_model(source.model, (), source.kwargs, out=folder / "out", stages=2)


def test_two_processes_on_two_cores(tmp_path: Path) -> None:
    """In turns, the least of each.

    CPU seconds tell what two idle cores would do; wall seconds what these did.  Two copies of the uncut model at once
    tell what these can do: cores that share a cache, memory or an arithmetic unit each take longer then.
    """
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        cut(folder)
    turns = [(measure(folders[0], UNCUT), measure(folders[0], CUT), measure_together(folders)) for _ in range(TURNS)]
    one, two, both = (Seconds(*map(min, zip(*side, strict=True))) for side in zip(*turns, strict=True))
    columns = ("GPT-2 medium, 40 batches of 1 × 64", "one process", "two processes", "asked", "times as fast")
    table = Table("processes", "pytest tests/benchmarks/running/test_processes.py -s", columns, complete=3)
    for name, a, b in (("wall s", one.wall, two.wall), ("CPU s of the busiest process", one.cpu, two.cpu)):
        table.add(name, f"{a:.1f}", f"{b:.1f}", f"≥ {ASKED}", f"{a / b:.2f}")
    table.add(
        "wall s, two uncut models at once", f"{one.wall:.1f}", f"{both.wall:.1f}", "", f"{2 * one.wall / both.wall:.2f}"
    )
    table.publish()
    assert one.cpu / two.cpu >= ASKED
