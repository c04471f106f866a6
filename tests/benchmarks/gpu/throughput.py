"""All GPUs of this host busy with one model, beside what others make of them.

    python3 -m tests.benchmarks.gpu.throughput [--limit SECONDS] [ROW ...]

Each row is measured in a process of its own, or as many as there are GPUs.  Needs transformers and accelerate.
"""

from __future__ import annotations

import argparse
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

TORCHRUN = ("ours", "ours-graphs", "ours-compiled")
IN_PROCESSES = {"pipelining": "pipelining", "two-hosts": "two-hosts"} | {f"{name}-torchrun": name for name in TORCHRUN}


def prepare() -> None:
    """The stages, by the cut of the least bottleneck, and their weights."""
    if not (llama.STAGES / "manifest.json").exists():
        command = [sys.executable, "-m", "passes.compile", llama.__file__, "-o", str(llama.STAGES), "--weights", "none"]
        subprocess.run([*command, "--stages", str(torch.cuda.device_count()), "--slack", "0"], check=True)
    llama.fill()
    torch.cuda.empty_cache()


def measure(row: str, limit: float) -> Measured:
    """What a row measures; nothing where it fails, and why is on the terminal."""
    command = [sys.executable]
    if row in IN_PROCESSES:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torch.cuda.device_count())]
    command += ["-m", "tests.benchmarks.gpu.rows", IN_PROCESSES.get(row, row), str(0.8 * limit)]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as e:
        print(f"{row}: more than {limit:g} s\n{(e.stderr or b'').decode()[-3000:]}", flush=True)
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
    for row, measured in results.items():
        base = results.get("one-gpu-compiled" if "compiled" in row else "one-gpu", {})
        for what, value in measured.items():
            is_rate = value > 1000
            shown = f"{value:,.0f} tokens/s" if is_rate else f"{value:.4g}{' s' * (what != 'difference')}"
            one = base.get(what, base.get("stream") if is_rate else None)
            text.append(f"| {row} | {what} | {shown} | {f'{value / one:.3f}' if one else ''} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.gpu.throughput")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="default: all")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for a row: torch.compile takes minutes")
    options = parser.parse_args()
    prepare()
    rows = options.rows or [*ROWS, *(row for row in IN_PROCESSES if row not in ROWS)]
    results = {row: measure(row, options.limit) for row in rows}
    text = table(results)
    print(f"\n{text}")
    if folder := os.environ.get("OUT"):
        (Path(folder) / "throughput.md").write_text(text + "\n")


if __name__ == "__main__":
    main()
