"""Predicted and measured times of stages on the GPUs of this host: `python3 -m tests.benchmarks.gpu.prediction`.

Measures the host, cuts each model in two (for one GPU: in one) with both cost models, runs the stages one batch at a
time, and prints a table; where the environment has OUT, the table, the cluster file and a list of operators go to that
folder as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
import transformers

from ir.machine.cluster import Cluster
from tests.benchmarks.running.prediction import (
    COLUMNS,
    Entry,
    Row,
    first,
    gpt2,
    llama,
    operators,
    predict_and_run,
    resnet50,
    t5,
    text,
)

TARGETS = (0.10, 0.05)  # of the roofline, of the profile
IN_FLIGHT = 1  # with more, a stage also waits for Python, which starts the kernels of all, and slows down by transfers

MODELS = {
    "Llama-like, 8 layers, bf16, 4 × 512": Entry(
        partial(
            llama,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=8,
            num_attention_heads=32,
            num_key_value_heads=8,
            vocab_size=32000,
        ),
        lambda: text(4, 512),
        torch.bfloat16,
    ),
    "GPT-2, bf16, 32 × 512": Entry(gpt2, lambda: text(32, 512), torch.bfloat16),
    "ResNet-50, float32, 64": Entry(resnet50, lambda: {"pixel_values": torch.randn(64, 3, 224, 224)}),
    "T5-base, bf16, 32 × 512 + 128": Entry(
        partial(t5, d_model=768, d_ff=3072, num_layers=12, num_heads=12), lambda: text(32, 512, 128), torch.bfloat16
    ),
}

SMALL = {  # to see that the script runs where there is no GPU
    "Llama-like": Entry(
        partial(llama, hidden_size=256, intermediate_size=512, num_hidden_layers=2, vocab_size=1000),
        lambda: text(2, 64),
    ),
    "ResNet-50": Entry(resnet50, lambda: {"pixel_values": torch.randn(1, 3, 224, 224)}),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.gpu.prediction")
    parser.add_argument("models", nargs="*", help="how their names begin; default: all")
    parser.add_argument("--devices", help="as runtime.measure takes them; default: all GPUs")
    parser.add_argument("--cluster", type=Path, help="what runtime.measure wrote for a host like this one")
    parser.add_argument("--small", action="store_true", help="small models, to try the script itself")
    options = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    torch.set_num_threads(1 if options.devices and "cpu" in options.devices else torch.get_num_threads())
    with TemporaryDirectory() as folder:
        if options.cluster:
            cluster, how = Cluster.read(options.cluster), f"by {options.cluster}"
        else:
            cluster, how = _measure(Path(folder), options.devices)
        lines = [f"{', '.join(d.name for d in cluster.devices)} measured {how}; torch {torch.__version__}"]
        rows, details = _rows(Path(folder), first(cluster, min(2, len(cluster.devices))), _chosen(options))
    lines += [*_table(rows), *(_verdict(rows) if rows else ())]
    print("\n".join(lines))
    _keep("prediction.txt", "\n".join(lines) + "\n")
    _keep("prediction-operators.txt", "\n".join(details) + "\n")
    return 0


def _chosen(options: argparse.Namespace) -> dict[str, Entry]:
    models = SMALL if options.small else MODELS
    return {name: entry for name, entry in models.items() if not options.models or name.startswith((*options.models,))}


def _rows(folder: Path, cluster: Cluster, models: Mapping[str, Entry]) -> tuple[list[Row], list[str]]:
    """One a device, and what each operator is predicted to take.  A model that fails is told, and left out."""
    rows, details = list[Row](), list[str]()
    for i, (name, entry) in enumerate(models.items()):
        start = perf_counter()
        try:
            found, plan = predict_and_run(name, entry, cluster, folder / str(i), IN_FLIGHT)
        except Exception:  # the other models are worth their rows
            details += [f"## {name}", traceback.format_exc()]
            print(f"{name} failed\n{details[-1]}", file=sys.stderr, flush=True)
            continue
        rows += found
        details += [f"## {name}", *operators(plan), ""]
        print(f"{name}: {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        _keep("prediction-operators.txt", "\n".join(details) + "\n")
        _keep("prediction.txt", "\n".join(_table(rows)) + "\n")
    return rows, details


def _table(rows: Sequence[Row]) -> list[str]:
    cells = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells]


def _verdict(rows: Sequence[Row]) -> Iterator[str]:
    for i, (name, target) in enumerate(zip(COLUMNS[3:], TARGETS, strict=True)):
        worst = max(row.errors[i] for row in rows)
        yield f"{name}: at most {worst:.1%} off, {target:.0%} asked: {'met' if worst <= target else 'missed'}"


def _keep(name: str, text: str) -> None:
    if folder := os.environ.get("OUT"):
        Path(folder, name).write_text(text)


def _measure(folder: Path, devices: str | None) -> tuple[Cluster, str]:
    """The measured cluster, and how long it took."""
    file, start = folder / "cluster.toml", perf_counter()
    threads = ["--threads", "1"]  # of a share of the CPU
    chosen = ["--devices", devices] if devices else []
    subprocess.run([sys.executable, "-m", "runtime.measure", "-o", str(file), *chosen, *threads], check=True)
    _keep("cluster.toml", file.read_text())
    return Cluster.read(file), f"in {perf_counter() - start:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
