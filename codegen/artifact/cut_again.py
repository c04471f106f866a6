"""An artifact as a source: the graph before its cut, and the weights of its stages under their names in the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from codegen.artifact.export import StoredWeight, stored_weights
from codegen.artifact.graph_file import read_graph
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import SourceError
from ir.sources import Source
from runtime.errors import ManifestError
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import FILE, Manifest, Padding


@dataclass(frozen=True)
class ArtifactSource(Source):
    """The source that an artifact is for another cut: a graph in place of a model."""

    rows_padding: Padding = Padding()  # of its program; how many stages there are makes no difference


def is_artifact_folder(path: Path) -> bool:
    """Whether a folder is one that the compiler wrote."""
    return (path / FILE).is_file()


def read_artifact(folder: Path, weights: bool = True) -> ArtifactSource:
    """Read an artifact for another cut; without `weights`, none need be there.

    Raises SourceError for one without its graph or weights, and for one whose stages were edited.
    """
    try:
        manifest = Manifest.read(folder)
    except ManifestError as e:
        raise SourceError(str(e)) from e
    _check_unedited(folder, manifest)
    found = cache(partial(stored_weights, folder, manifest))  # which may not be there
    with _on_path(folder):
        _import_operators(folder, manifest)
        uncut = read_graph(folder, lambda name: _data(found()[name]))
    held = [(name, weight.tensor.name) for weight in manifest.weights for name in weight.names]
    stored = found() if weights else {}
    named = {name: stored[weight].tensor.source for name, weight in held if weight in stored}
    return ArtifactSource(
        name=manifest.name,
        model=nn.Module(),
        args=(),
        kwargs={},
        dynamic_shapes=None,
        weights=Checkpoint(folder, named) if weights else {},
        notes=uncut.notes,
        made_up=uncut.made_up,
        files=tuple(folder / link.path for link in manifest.links),
        tokenizer=tuple(sorted((folder / "tokenizer").glob("*"))),
        decoding=uncut.graph.decoding,
        kept=uncut.graph,
        rows_padding=manifest.programs[0].padding,
    )


def _check_unedited(folder: Path, manifest: Manifest) -> None:
    """Raise SourceError for a stage file that is another than the compiler wrote."""
    modules = dict.fromkeys(stage.module for program in manifest.programs for stage in program.stages)
    for name in modules:
        if not (folder / name).is_file() or file_hash(folder / name) != manifest.files.get(name):
            raise SourceError(
                f"{folder / name} was edited, or is gone, and stages that are made anew would lose that; "
                "put it back, or run this artifact as it is"
            )


def _data(stored: StoredWeight) -> torch.Tensor:
    return stored.tensor.source.read(stored.tensor.dtype)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """The folder on Python's path: files of the user's own lie in it."""
    sys.path.append(str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


def _import_operators(folder: Path, manifest: Manifest) -> None:
    """Import what registers the operators from outside torch.  Raises SourceError for what cannot be imported."""
    for operator in manifest.operators:
        try:
            if operator.module:
                import_module(operator.module)
        except Exception as e:
            what = f"pip install {operator.library}" if operator.library else "it lies in the folder"
            raise SourceError(
                f"{folder} runs {operator.name}, and {operator.module} cannot be imported: {e}; {what}"
            ) from e
