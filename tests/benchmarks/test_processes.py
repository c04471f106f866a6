"""Two stages in two processes of one thread each, beside the uncut model in one process of one thread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from ir.sources import read_source
from passes.compilation.api import compile_model
from tests.benchmarks.report import Table
from tests.support.checking import EXAMPLES
from tests.support.jobs import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ASKED = 1.8
TURNS = 2

BATCHES = """\
from time import perf_counter, process_time

torch.set_num_threads(1)
torch.manual_seed(0)
WARM, COUNT = 4, 32
batches = [{"input_ids": torch.randint(50257, (1, 64)), "attention_mask": torch.ones(1, 64, dtype=torch.int64)}]
batches *= WARM + COUNT

def report(**seconds):
    import json
    print(json.dumps(dict(rank=RANK, **seconds)))

"""

UNCUT = """\
import runpy
model = runpy.run_path("examples/gpt2.py")["model"]()
with torch.no_grad():
    begin = process_time()
    for batch in batches[:WARM]:
        model(**batch)
    start = perf_counter()
    for batch in batches[WARM:]:
        model(**batch)
    report(wall=perf_counter() - start, cpu=process_time() - begin)
"""

CUT = """\
wall = 0.0
with Pipeline.distributed(OUT, timeout=300) as pipe:
    begin = process_time()
    if RANK == 0:
        list(pipe.map(batches[:WARM]))
        start = perf_counter()
        for y in pipe.map(batches[WARM:], in_flight=4):
            pass
        wall = perf_counter() - start
report(wall=wall, cpu=process_time() - begin)
"""


class Seconds(NamedTuple):
    """Of a stream of 32 batches: those that passed, and those that the busiest process computed."""

    wall: float
    cpu: float


def measure(folder: Path, script: str, ranks: int) -> Seconds:
    ended = run(folder, BATCHES + script, ranks, limit=500)
    assert ended.status == 0, ended.err
    said = [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]
    assert len(said) == ranks, ended.out
    for path in folder.glob("pid*"):
        path.unlink()
    return Seconds(max(s["wall"] for s in said), max(s["cpu"] for s in said) * 32 / 36)


def cut(out: Path) -> None:
    source = read_source(str(EXAMPLES / "gpt2.py"))
    weights, shapes = ROOT / "build" / "checkpoints" / "gpt2", source.dynamic_shapes
    compile_model(source.model, (), source.kwargs, out=out, stages=2, dynamic_shapes=shapes, checkpoint=weights)


def test_two_processes_on_two_cores(tmp_path: Path) -> None:
    """In turns, the least of each.  CPU seconds tell what two idle cores would do; wall seconds what these did."""
    cut(tmp_path / "out")
    turns = [(measure(tmp_path, UNCUT, 1), measure(tmp_path, CUT, 2)) for _ in range(TURNS)]
    one, two = (Seconds(*map(min, zip(*side, strict=True))) for side in zip(*turns, strict=True))
    columns = ("GPT-2, 32 batches of 1 × 64", "one process", "two processes", "asked", "times as fast")
    table = Table("processes", "pytest tests/benchmarks/test_processes.py -s", columns, complete=2)
    for name, a, b in (("wall s", one.wall, two.wall), ("CPU s of the busiest process", one.cpu, two.cpu)):
        table.add(name, f"{a:.1f}", f"{b:.1f}", f"≥ {ASKED}", f"{a / b:.2f}")
    table.publish()
    assert one.cpu / two.cpu >= ASKED
