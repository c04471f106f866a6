"""What it takes to plan models that no machine here could hold: the command line, on a config.json alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import transformers as t

from tests.benchmarks.report import Table

ROOT = Path(__file__).resolve().parents[3]
LLAMA: dict[str, Any] = dict(vocab_size=128256, num_key_value_heads=8, max_position_embeddings=131072, dtype="bfloat16")
DEVICE = '[[device]]\nname = "cuda:{}"\nflops = 4e14\nbandwidth = "3.3TB"\nmemory = "{}GiB"\nlaunch = 5e-6\n'


GENERATE = ("--generate", "--max-length", "4096", "--sequences", "32")
MORE = 1.3  # times the seconds and the memory, for a decoder's step


@dataclass(frozen=True)
class Entry:
    """A configuration, the devices it is planned for (with their memory, GiB), and what is asked of its plan."""

    config: t.PreTrainedConfig
    devices: int
    memory: int
    seconds: float  # with both cores idle
    peak: float  # GB, resident
    like: str = ""  # the entry that it may take as long as, where that is measured before it


DEEPSEEK: dict[str, Any] = dict(dtype="bfloat16", architectures=["DeepseekV3ForCausalLM"])
FP8 = dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128])
IN_FP8: dict[str, Any] = {**DEEPSEEK, "quantization_config": FP8}
ENTRIES = {
    "Llama-3-70B": Entry(
        t.LlamaConfig(
            **LLAMA, hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
            architectures=["LlamaForCausalLM"],
        ),
        devices=8, memory=80, seconds=20, peak=0.8,
    ),
    "Llama-3.1-405B": Entry(
        t.LlamaConfig(
            **LLAMA, hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128,
            architectures=["LlamaForCausalLM"],
        ),
        devices=16, memory=141, seconds=30, peak=1.2,
    ),
    "DeepSeek-V3": Entry(
        t.DeepseekV3Config(**DEEPSEEK),
        devices=16, memory=141, seconds=45, peak=1.2,
    ),
    "DeepSeek-V3, FP8": Entry(
        t.DeepseekV3Config(**IN_FP8),
        devices=16, memory=80, seconds=45, peak=1.2, like="DeepSeek-V3",
    ),
    "Kimi-K2's sizes": Entry(
        t.DeepseekV3Config(
            **DEEPSEEK, vocab_size=163840, num_attention_heads=64, num_key_value_heads=64, n_routed_experts=384,
            n_group=1, topk_group=1, first_k_dense_replace=1, max_position_embeddings=131072,
        ),
        devices=16, memory=192, seconds=60, peak=1.2,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def taken() -> dict[tuple[str, Sequence[str]], float]:
    """Wall seconds of each plan, by its name and options."""
    return {}


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    columns = ("model", "stages", "asked", "wall s", "CPU s", "asked, GB", "peak RSS, GB", "artifact")
    table = Table(
        "planning", "pytest tests/benchmarks/planning/test_plan_memory.py -s", columns, complete=2 * len(ENTRIES)
    )
    yield table
    table.publish()


@pytest.mark.parametrize("options", [(), GENERATE], ids=["plain", "generate"])
@pytest.mark.parametrize("name", ENTRIES)
def test_planning_takes_little(
    name: str, options: Sequence[str], tmp_path: Path, table: Table, taken: dict[tuple[str, Sequence[str]], float]
) -> None:
    entry, more = ENTRIES[name], MORE if options else 1.0
    entry.config.save_pretrained(tmp_path / "model")
    devices = "".join(DEVICE.format(i, entry.memory) for i in range(entry.devices))
    (tmp_path / "cluster.toml").write_text(f'link = {{ bandwidth = "400GB", latency = 1e-5 }}\n{devices}')
    plan = ("model", "--cluster", "cluster.toml", "-o", "out", "--weights", "none", *options)
    env = os.environ | {"PYTHONPATH": str(ROOT), "STAGECUT_CACHE": str(tmp_path / "cache")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    start = perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "passes.compile", *plan], cwd=tmp_path, env=env)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, cpu, peak = perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    assert process.returncode == 0
    written = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    taken[name, options] = seconds
    asked = f"{taken.get((entry.like, options), entry.seconds * more):.0f}", f"{entry.peak * more:.2f}"
    row = (asked[0], f"{seconds:.1f}", f"{cpu:.1f}", asked[1], f"{peak:.2f}", f"{written / 1e6:.1f} MB")
    table.add(f"{name}, --generate" if options else name, str(entry.devices), *row)
    assert peak <= entry.peak * more
