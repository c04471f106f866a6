"""An artifact folder -> stages in memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from torch import nn

from runtime.manifest import Manifest, ManifestError, Stage, file_hash
from runtime.stage import LoadedStage


def load_stages(
    folder: Path, manifest: Manifest, devices: Sequence[torch.device], *, strict: bool
) -> tuple[LoadedStage, ...]:
    """Load each stage onto its device.

    A stage file that was edited runs with a warning.  STRICT refuses it, and reads every weights
    file once more to compare it with its hash.  Raises ManifestError for a file that is missing,
    damaged or, if strict, changed.
    """
    for stage in manifest.stages:
        for name in (stage.module, stage.weights):
            _require_file(folder / name)
        _check_hash(folder / stage.module, manifest, strict)
        if strict:
            _check_hash(folder / stage.weights, manifest, strict)
    return tuple(
        LoadedStage.of(i, stage, device, _load_module(folder, stage, device))
        for i, (stage, device) in enumerate(zip(manifest.stages, devices, strict=True))
    )


def _check_hash(path: Path, manifest: Manifest, strict: bool) -> None:
    if file_hash(path) == manifest.files.get(path.name):
        return
    if strict:
        raise ManifestError(f"{path.name} differs from the manifest: it was edited; load it without strict to run it")
    warnings.warn(f"{path.name} differs from the manifest: it was edited", stacklevel=4)


def _load_module(folder: Path, stage: Stage, device: torch.device) -> nn.Module:
    path = folder / stage.module
    cls = getattr(_import_file(path), stage.cls, None)
    if cls is None:
        raise ManifestError(f"{path} has no class {stage.cls}")
    try:
        return cls.load(folder / stage.weights, device)
    except (SafetensorError, RuntimeError) as e:
        raise ManifestError(f"cannot read {folder / stage.weights}: {e}; compile the model again") from e


def _import_file(path: Path) -> ModuleType:
    """The module of a stage file, under a name of its own that other artifacts cannot take.

    Not by importlib's file loader, which leaves a cache in the folder and may take it for newer
    than an edit of the same second.
    """
    name = f"stagecut_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses, inspect and pickle look for it
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except Exception as e:
        del sys.modules[name]
        raise ManifestError(f"cannot import {path}: {type(e).__name__}: {e}") from e
    return module


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"{path} is missing; compile the model again")
