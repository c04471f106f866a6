"""An artifact folder -> stages in memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from runtime.manifest import Link, Manifest, ManifestError, Stage, file_hash, sample_hash
from runtime.stage.speed import AS_IT_IS, Speed
from runtime.stage.stage import LoadedStage


def load_stages(
    folder: Path,
    manifest: Manifest,
    devices: Sequence[torch.device],
    *,
    strict: bool,
    speed: Speed = AS_IT_IS,
    indices: Collection[int] | None = None,
) -> tuple[LoadedStage, ...]:
    """Load each stage, or those with the INDICES, onto its device, as many at once as there are devices.

    A stage file that was edited runs with a warning.  STRICT refuses it, and reads every weights
    file once more to compare it with its hash.  A checkpoint's files are compared by their length and
    a sample of their bytes, since they can have 100 GB and more.  Raises ManifestError for a file that is missing,
    damaged or, if strict, changed; DeviceError for a SPEED that a device does not have.
    """
    chosen = range(len(manifest.stages)) if indices is None else sorted(indices)
    for stage in (manifest.stages[i] for i in chosen):
        for name in (stage.module, stage.weights):
            _require_file(folder / name)
        _check_hash(folder / stage.module, manifest, strict)
        if strict:
            _check_hash(folder / stage.weights, manifest, strict)
    for link in manifest.links:
        if not set(chosen).isdisjoint(link.stages):
            _check_link(folder, link)

    def load(index: int) -> LoadedStage:
        stage, device = manifest.stages[index], devices[index]
        return speed.apply(LoadedStage.of(index, stage, device, _load_module(folder, stage, device)))

    with ThreadPoolExecutor(max_workers=len({devices[i] for i in chosen}), thread_name_prefix="load") as pool:
        return tuple(pool.map(load, chosen))


def _check_link(folder: Path, link: Link) -> None:
    """Raise ManifestError unless a file of the checkpoint is what it was when the stages were cut."""
    path, readers = folder / link.path, ", ".join(f"stage_{i}" for i in link.stages)
    if not path.is_file():
        raise ManifestError(
            f"{path} is missing, where the weights of {readers} lie; put the checkpoint back, or compile again"
        )
    if path.stat().st_size != link.nbytes or sample_hash(path) != link.sample:
        raise ManifestError(
            f"{path}, where the weights of {readers} lie, has changed since they were cut; compile the model again"
        )


def _check_hash(path: Path, manifest: Manifest, strict: bool) -> None:
    if file_hash(path) == manifest.files.get(path.name):
        return
    if strict:
        raise ManifestError(f"{path.name} differs from the manifest: it was edited; load it without strict to run it")
    warnings.warn(f"{path.name} differs from the manifest: it was edited", stacklevel=4)


def _load_module(folder: Path, stage: Stage, device: torch.device) -> nn.Module:
    path = folder / stage.module
    cls = getattr(import_file(path), stage.cls, None)
    if cls is None:
        raise ManifestError(f"{path} has no class {stage.cls}")
    try:
        return cls.load(folder / stage.weights, device)
    except Exception as e:  # the file may be edited, and its weights be anything
        why = f"{type(e).__name__}: {e}"
        raise ManifestError(
            f"{stage.module} cannot read {folder / stage.weights}: {why}; compile the model again"
        ) from e


def import_file(path: Path) -> ModuleType:
    """The module of a stage file, under a name of its own that other artifacts cannot take.

    Not by importlib's file loader, which leaves a cache in the folder and may take it for newer
    than an edit of the same second.
    """
    name = f"stagecut_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses, inspect and pickle look for it
    sys.path.append(str(path.parent))  # where files of the user lie whose classes a stage runs as they are
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))
    except Exception as e:
        del sys.modules[name]
        raise ManifestError(f"cannot import {path}: {type(e).__name__}: {e}") from e
    finally:
        sys.path.remove(str(path.parent))
    return module


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ManifestError(f"{path} is missing; compile the model again")
