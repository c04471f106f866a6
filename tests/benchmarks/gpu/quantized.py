"""Decoding over quantized weights beside bfloat16: `python3 -m tests.benchmarks.gpu.quantized [KIND ...] [--compile]`.

Each kind is the decoder of `tests.benchmarks.gpu.decoder`, cut for one GPU, with random weights that are made there; it
prints the time of a step of one text of 1,000 tokens, with `--texts 1 32` of one and of 32 at once; `--compile` has
torch.compile make the stages faster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from runtime import Pipeline
from tests.benchmarks.gpu import decoder, tokens

FOLDER = Path(__file__).resolve().parents[3] / "build/benchmarks/quantized"
_PACKED = {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group", "symmetric": True}
_FLOATS = {"num_bits": 8, "type": "float", "strategy": "channel"}
KINDS: Mapping[str, Mapping[str, Any] | None] = {
    "bfloat16": None,
    "w4a16": {"format": "pack-quantized", "config_groups": {"all": {"weights": _PACKED}}},
    "fp8": {"format": "float-quantized", "config_groups": {"all": {"weights": _FLOATS}}},
    "fp8-blocks": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
}


def compiled(kind: str, layers: int) -> Path:
    """The artifact of a kind, without weights, whose stage files make random ones."""
    source, out = FOLDER / f"{kind}-{layers}-config", FOLDER / f"{kind}-{layers}"
    if (out / "manifest.json").exists():
        return out
    settings = KINDS[kind]
    fields = {**decoder.config("7b", layers).to_dict(), "architectures": ["LlamaForCausalLM"]}
    ignored = {"ignore": ["lm_head"], "modules_to_not_convert": ["lm_head"]}
    quantization = {"quantization_config": {"quant_method": "compressed-tensors", **ignored, **(settings or {})}}
    source.mkdir(parents=True, exist_ok=True)
    (source / "config.json").write_text(json.dumps({**fields, **(quantization if settings else {})}))
    command = [sys.executable, "-m", "passes.compile", str(source), "-o", str(out), "--weights", "none", "--generate"]
    command += ["--max-length", "4096", "--tokens", "100000", "--cluster", "h200x1"]
    subprocess.run(command, check=True)
    tokens.make_random(out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.benchmarks.gpu.quantized")
    parser.add_argument("kinds", nargs="*", default=[*KINDS], choices=KINDS)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--compile", action="store_true", help="have torch.compile make the stages faster")
    parser.add_argument("--texts", type=int, nargs="+", default=[1], help="how many a step is for, one after the other")
    parser.add_argument("--plan-only", action="store_true")
    given = parser.parse_args()
    folders = {kind: compiled(kind, given.layers) for kind in given.kinds}
    for kind, folder in folders.items() if not given.plan_only else ():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = Pipeline.load(folder, processes=False, compile=given.compile)
        with pipe:
            for rows in given.texts:
                new = 60 + 4 * rows  # while others are prefilled, the first texts go on
                took = [tokens.steps(pipe, rows, 1000, new, 10_000 * (i + 1))[1] for i in range(4)]
                times, held = " ".join(f"{step * 1e3:.2f}" for step in took), torch.cuda.memory_allocated() / 1e9
                print(f"{kind}, {given.layers} layers, {rows} texts: {times} ms a step; {held:.2f} GB held", flush=True)


if __name__ == "__main__":
    main()
