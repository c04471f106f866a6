"""What it takes to plan models that no machine here could hold: the command line, on a config.json alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pytest
import transformers as t

from tests.benchmarks.report import Table

ROOT = Path(__file__).resolve().parents[2]
LLAMA = dict(vocab_size=128256, num_key_value_heads=8, max_position_embeddings=131072, dtype="bfloat16")
DEVICE = '[[device]]\nname = "cuda:{}"\nflops = 4e14\nbandwidth = "3.3TB"\nmemory = "{}GiB"\nlaunch = 5e-6\n'


@dataclass(frozen=True)
class Entry:
    """A configuration, the devices it is planned for (with their memory, GiB), and what that may take."""

    config: t.PreTrainedConfig
    devices: int
    memory: int
    seconds: float  # with both cores idle
    peak: float  # GB, resident


ENTRIES = {
    "Llama-3-70B": Entry(
        t.LlamaConfig(
            **LLAMA, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
            architectures=["LlamaForCausalLM"],
        ),
        devices=8, memory=80, seconds=120, peak=1.2,
    ),
    "Llama-3.1-405B": Entry(
        t.LlamaConfig(
            **LLAMA, hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128,
            architectures=["LlamaForCausalLM"],
        ),
        devices=16, memory=141, seconds=240, peak=1.2,
    ),
    "DeepSeek-V3": Entry(
        t.DeepseekV3Config(dtype="bfloat16", architectures=["DeepseekV3ForCausalLM"]),
        devices=16, memory=141, seconds=240, peak=1.6,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    columns = ("model", "stages", "wall s", "CPU s", "peak RSS", "artifact")
    table = Table("planning", "pytest tests/benchmarks/test_plan_memory.py -s", columns, complete=len(ENTRIES))
    yield table
    table.publish()


@pytest.mark.parametrize("name", ENTRIES)
def test_planning_takes_little(name: str, tmp_path: Path, table: Table) -> None:
    entry = ENTRIES[name]
    entry.config.save_pretrained(tmp_path / name)
    devices = "".join(DEVICE.format(i, entry.memory) for i in range(entry.devices))
    (tmp_path / "cluster.toml").write_text(f'link = {{ bandwidth = "400GB", latency = 1e-5 }}\n{devices}')
    command = [
        sys.executable,
        "-m",
        "passes.compile",
        name,
        "--cluster",
        "cluster.toml",
        "-o",
        "out",
        "--weights",
        "none",
    ]
    start = perf_counter()
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu, peak = perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    assert process.returncode == 0
    written = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    row = (f"{seconds:.0f}", f"{cpu:.0f}", f"{peak:.2f} GB", f"{written / 1e6:.1f} MB")
    table.add(name, str(entry.devices), *row)
    assert peak <= entry.peak
    assert min(seconds, cpu) <= entry.seconds  # beside other jobs, the CPU's seconds are what an idle machine needs
