"""Checkpoints as people have them.  `python -m tests.zoo.checkpoints` makes, cuts and runs each.

kinds      what is tried of one, and the small models whose weights are saved
training   files and folders of training, for a module of the user's
folders    folders of transformers, as they are saved, renamed, fetched and left
pictures   folders of models for texts with images
adapters   adapters that peft saves, beside the weights of a Llama
merging    what adapters of each kind make of a weight
libraries  folders that timm, open_clip and diffusers write
ggufs      GGUF files as llama.cpp writes them
others     folders of other programs, and quantized weights with adapters
pipelines  pipelines of diffusers, which run their own loop around stages
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from ir.errors import CompileError
from passes.compilation.api import compile_model
from runtime import Pipeline
from tests.zoo.checkpoints.adapters import ADAPTERS
from tests.zoo.checkpoints.folders import FOLDERS
from tests.zoo.checkpoints.ggufs import GGUFS
from tests.zoo.checkpoints.kinds import Kind, first_tensor
from tests.zoo.checkpoints.libraries import LIBRARIES
from tests.zoo.checkpoints.others import OTHERS, QUANTIZED
from tests.zoo.checkpoints.pipelines import PIPELINES
from tests.zoo.checkpoints.training import TRAINED

QUICK: dict[str, Any] = {"stages": 2, "progress": False, "time_limit": 2.0, "size_limit": 0.0}
KINDS = {
    "Files and folders of training, for a module of the user's": TRAINED,
    "Folders": FOLDERS,
    "Adapters beside the weights": ADAPTERS,
    "Adapters beside quantized weights": QUANTIZED,
    "Folders of other libraries": LIBRARIES,
    "GGUF files": GGUFS,
    "Folders of other programs": OTHERS,
    "Pipelines of diffusers, as one artifact; images of its own loop": PIPELINES,
}


def tried(kind: Kind) -> str:
    """The largest difference from the model, or the message with which it was refused; raises for anything else."""
    with tempfile.TemporaryDirectory() as name:
        found = kind(Path(name))
        args = () if isinstance(found.source, str) else tuple(found.call.values())
        try:
            compile_model(found.source, args, out=Path(name) / "out", **QUICK, **found.options)
        except CompileError as e:
            if found.expected is not None:
                raise
            return "refused: " + str(e).replace(f"{name}/", "").replace("|", "\\|")
        if found.expected is None:
            raise AssertionError("it is to be refused")
        with Pipeline.load(Path(name) / "out", devices=["cpu"]) as pipe, torch.no_grad():
            out = found.run(pipe, found.call)
        difference = (first_tensor(out) - found.expected).abs().max().item()
        assert difference <= 1e-6, difference
        return f"difference {difference:.2g}"
