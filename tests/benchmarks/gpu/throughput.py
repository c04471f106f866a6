"""All GPUs of this host busy with one model, beside what others make of them.

    python3 -m tests.benchmarks.gpu.throughput [ROW ...]

Each row is measured in a process of its own, or as many as there are GPUs.  Needs transformers and accelerate.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from tests.benchmarks.gpu import llama
from tests.benchmarks.gpu.batches import Measured
from tests.benchmarks.gpu.rows import ROWS

TORCHRUN = ("ours", "ours-graphs", "ours-compiled-graphs")
LIMIT = 300.0  # seconds for a row: torch.compile takes minutes
IN_PROCESSES = {"pipelining": "pipelining", "two-hosts": "two-hosts"} | {f"{name}-torchrun": name for name in TORCHRUN}


def prepare() -> None:
    """The stages, by the cut of the least bottleneck, and their weights."""
    if not (llama.STAGES / "manifest.json").exists():
        command = [sys.executable, "-m", "passes.compile", llama.__file__, "-o", str(llama.STAGES), "--weights", "none"]
        subprocess.run([*command, "--stages", str(torch.cuda.device_count()), "--slack", "0"], check=True)
    llama.fill()
    torch.cuda.empty_cache()


def measure(row: str) -> Measured:
    """What a row measures; nothing where it fails, and why is on the terminal."""
    command = [sys.executable]
    if row in IN_PROCESSES:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torch.cuda.device_count())]
    command += ["-m", "tests.benchmarks.gpu.rows", IN_PROCESSES.get(row, row)]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired as e:
        print(f"{row}: more than {LIMIT:g} s\n{(e.stderr or b'').decode()[-3000:]}", flush=True)
        return {}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{row}: status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-9000:]}", flush=True)
        return {}
    measured: Measured = json.loads(lines[-1])
    print(f"{row} ({time.perf_counter() - started:.0f} s): {measured}", flush=True)
    return measured


def table(results: dict[str, Measured]) -> str:
    devices = f"{torch.cuda.device_count()} {torch.cuda.get_device_name()}"
    command = "python3 -m tests.benchmarks.gpu.throughput"
    text = [f"{date.today()}, on {devices}, torch {torch.__version__}, by `{command}`:", ""]
    text += ["| | what | measured | times one GPU |", "|---|---|--:|--:|"]
    base = results.get("one-gpu", {}).get("stream", float("nan"))
    for row, measured in results.items():
        for what, value in measured.items():
            is_rate = value > 1000
            shown = f"{value:,.0f} tokens/s" if is_rate else f"{value:.4g} s"
            text.append(f"| {row} | {what} | {shown} | {f'{value / base:.2f}' if is_rate else ''} |")
    return "\n".join(text)


def main(rows: list[str]) -> None:
    prepare()
    results = {row: measure(row) for row in rows or [*ROWS, *(row for row in IN_PROCESSES if row not in ROWS)]}
    text = table(results)
    print(f"\n{text}")
    if folder := os.environ.get("OUT"):
        (Path(folder) / "throughput.md").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
