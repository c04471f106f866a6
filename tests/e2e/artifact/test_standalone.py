"""Stage files in empty folders with their weights, where Python has torch, safetensors and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.torch import save_file
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from passes.compilation.api import compile_model
from runtime.manifest.manifest import Manifest, ProgramStage
from tests.support.models.model_cases import CASES
from tests.support.models.planning import slow_machine

# Started without site-packages: of what is installed there, only the job's modules can be found.
ALONE = """\
import importlib.machinery
import importlib.util
import json
import sys

class Allowed:
    def find_spec(self, name, path=None, target=None):
        if path is None and name not in job["modules"]:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path or [job["site"]], target)

job = json.load(open("job.json"))
sys.meta_path.append(Allowed())
for name in ("numpy", "transformers", "ir", "passes", "codegen", "runtime"):
    assert importlib.util.find_spec(name) is None, name

sys.path.insert(0, "")
import torch
from safetensors.torch import load_file

torch.set_num_threads(1)
file = importlib.import_module(job["stage"])
stage = getattr(file, job["class"]).load(job["weights"])
# Copied, since a tensor of a mapped file is aligned to 8 bytes alone, where CPU kernels round differently.
received = {name: tensor.clone() for name, tensor in load_file("received.safetensors").items()}
with torch.no_grad():
    sent = stage(*(received[name] for name in file.RECEIVES), **job["sizes"])
torch.save(dict(zip(file.SENDS, sent, strict=True)), "sent.pt")
"""


def long_skips() -> tuple[nn.Module, dict[str, torch.Tensor], Any]:
    case = CASES["long skips"]
    return case.build(), {"x": case.calls()[0].args[0]}, case.dynamic


def t5() -> tuple[nn.Module, dict[str, torch.Tensor], Any]:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, use_cache=False)
    inputs = {"input_ids": torch.randint(50, (2, 6)), "decoder_input_ids": torch.randint(50, (2, 5))}
    sizes = {"input_ids": {0: "batch", 1: "seq"}, "decoder_input_ids": {0: "batch", 1: "answer"}}
    return T5ForConditionalGeneration(config), inputs, sizes


MODELS = [(long_skips, 2), pytest.param(t5, 3, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("make", "devices"), MODELS)
def test_stages_run_alone_one_after_the_other(make: Any, devices: int, tmp_path: Path) -> None:
    model, inputs, sizes = make()
    out = tmp_path / "out"
    options: dict[str, Any] = {"size_limit": 0.0, "draw": "stages"}
    compile_model(model.eval(), (), inputs, out=out, cluster=slow_machine(devices), dynamic_shapes=sizes, **options)
    manifest = Manifest.read(out)
    assert len(manifest.stages) >= devices
    values = dict(inputs)
    (program,) = manifest.programs
    sizes = {"batch": 2, "seq": 6, "answer": 5}
    for index, (stage, entry) in enumerate(zip(program.stages, manifest.stages, strict=True)):
        values |= run_alone(out, stage, entry.weights, values, sizes, tmp_path / f"{index}")
    with torch.no_grad():
        returned = model(**inputs)
    expected = returned if isinstance(returned, torch.Tensor) else returned.logits
    found = [values[send.tensor.name] for stage in program.stages for send in stage.sends if 0 in send.outputs]
    assert torch.equal(found[0], expected)


def run_alone(
    out: Path,
    stage: ProgramStage,
    weights: str,
    values: Mapping[str, torch.Tensor],
    sizes: Mapping[str, int],
    folder: Path,
) -> dict[str, torch.Tensor]:
    """What a stage sends, by name, from a process that sees nothing but FOLDER and the modules of torch."""
    folder.mkdir()
    for name in (stage.module, weights):
        shutil.copy(out / name, folder)
    received = {receive.tensor.name: values[receive.tensor.name].contiguous() for receive in stage.receives}
    save_file(received, folder / "received.safetensors")
    job = {
        "modules": sorted(modules_of("torch", "safetensors")),
        "site": sysconfig.get_paths()["purelib"],
        "stage": Path(stage.module).stem,
        "class": stage.cls,
        "weights": weights,
        "sizes": {name: sizes[name] for name in stage.sizes},
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", ALONE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "sent.pt")


@cache
def modules_of(*distributions: str) -> set[str]:
    """The modules of distributions and of all that they require."""
    needed = set(closure(distributions))
    return {m for m, owners in packages_distributions().items() if needed & set(map(canonicalize_name, owners))}


def closure(distributions: Any) -> Iterator[str]:
    todo, seen = list(distributions), set[str]()
    while todo:
        name = canonicalize_name(todo.pop())
        if name not in seen:
            seen.add(name)
            yield name
            required = map(Requirement, requires(name) or ())
            todo += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
