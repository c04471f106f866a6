"""Memory and disk that an 8 GB checkpoint in 4 shards costs: cutting it by copy and by link, loading its stages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
import torch
import transformers as hf

from codegen.artifact.weights import StageTensor, write_copies
from ir.checkpoint.tensors import Held
from tests.benchmarks.report import Table

MB = 1e6
STAGES = SHARDS = 4
CONFIG = hf.LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=18,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32000,
    dtype="bfloat16",
    architectures=["LlamaForCausalLM"],
)

# Run beside the stage file: how far loading it takes this process's memory, in bytes.
LOAD = """
import importlib, os, resource, sys
sys.path.insert(0, sys.argv[1])
stage = importlib.import_module(f"stage_{sys.argv[2]}")
load = getattr(stage, f"Stage{sys.argv[2]}").load
import torch
torch.zeros(1).to(torch.bfloat16)
with open("/proc/self/statm") as f:
    before = int(f.read().split()[1]) * resource.getpagesize()
made = load(os.path.join(sys.argv[1], f"stage_{sys.argv[2]}.safetensors"))
with open("/proc/self/status") as f:
    peak = next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
print(sum(t.nbytes for t in (*made.parameters(), *made.buffers())), peak - before)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of about 8 GB, which goes when the benchmark ends."""
    folder = tmp_path_factory.mktemp("checkpoint")
    CONFIG.save_pretrained(folder)
    with torch.device("meta"):
        tensors = hf.LlamaForCausalLM(CONFIG).state_dict()
    place: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        names = list(tensors)[shard::SHARDS]
        write_copies(folder / name, {n: StageTensor(Made(tensors[n]), torch.bfloat16) for n in names})
        place |= dict.fromkeys(names, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    yield folder
    for file in folder.iterdir():
        file.unlink()


class Made(Held):
    """A tensor that is made when it is written."""

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(self.shape, 0.01, dtype=dtype)


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    columns = ("8 GB checkpoint in 4 shards", "asked", "measured", "seconds")
    table = Table("weights", "pytest tests/benchmarks/planning/test_weights.py -s", columns, complete=2 * STAGES + 2)
    yield table
    table.publish()


def cut(checkpoint: Path, out: Path, weights: str) -> tuple[float, float]:
    """Cut it into stages.  Returns the peak memory of the compiler, in bytes, and its seconds."""
    command = [sys.executable, "-m", "passes.compile", str(checkpoint), "-o", str(out), "--weights", weights]
    start = perf_counter()
    code = (
        f"import resource, subprocess; subprocess.run({[*command, '--stages', str(STAGES)]!r}, check=True, stdout=2);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) * 1024, perf_counter() - start


@pytest.fixture(scope="module")
def artifacts(checkpoint: Path, table: Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The folders of both modes, after what making them cost has been checked."""
    folder = tmp_path_factory.mktemp("artifacts")
    base, _ = cut(checkpoint, folder / "none", "none")
    copy, seconds = cut(checkpoint, folder / "copy", "copy")
    table.add("copy: memory above the compiler's own", "≤ 600 MB", f"{(copy - base) / MB:.0f} MB", f"{seconds:.0f}")
    link, seconds = cut(checkpoint, folder / "link", "link")
    whole, without = (sum(f.stat().st_size for f in (folder / name).iterdir()) for name in ("link", "none"))
    written = f"{(whole - without) / MB:.3f} MB, {whole / MB:.2f} MB with code, pictures and report"
    table.add("link: bytes written for the weights", "< 1 MB", written, f"{seconds:.0f}")
    assert copy - base <= 600 * MB
    assert link - base <= 600 * MB
    assert whole - without < MB
    yield {"copy": folder / "copy", "link": folder / "link"}
    for file in (folder / "copy").iterdir():
        file.unlink()


@pytest.mark.parametrize("stage", range(STAGES))
@pytest.mark.parametrize("weights", ["copy", "link"])
def test_loading_a_stage_takes_its_own_bytes(
    artifacts: dict[str, Path], table: Table, weights: str, stage: int
) -> None:
    start = perf_counter()
    command = [sys.executable, "-c", LOAD, str(artifacts[weights]), str(stage)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    nbytes, grown = map(int, done.stdout.split())
    row = f"{weights}: memory of loading stage {stage} ({nbytes / MB:.0f} MB)"
    table.add(row, "≤ 105 %", f"{100 * grown / nbytes:.1f} %", f"{perf_counter() - start:.1f}")
    assert grown <= 1.05 * nbytes
