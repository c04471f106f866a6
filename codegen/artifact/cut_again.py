"""An artifact as a source: the graph before its cut, and the weights of its stages under their names in the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from codegen.artifact.export import StoredWeight, stored_weights
from codegen.artifact.graph_file import read_graph
from codegen.artifact.manifest import read_manifest
from ir.checkpoint.checkpoint import Checkpoint
from ir.errors import SourceError
from ir.sources import Source
from runtime.manifest.digests import file_hash
from runtime.manifest.manifest import FILE, TOKENIZER, Manifest, Padding, added_adapter


@dataclass(frozen=True)
class ArtifactSource(Source):
    """The source that an artifact is for another cut: a graph in place of a model."""

    rows_padding: Padding = Padding()  # of its program; how many stages there are makes no difference
    added: tuple[Path, ...] = ()  # the files of the adapters that it got since it was compiled


def is_artifact_folder(path: Path) -> bool:
    """Whether a folder is one that the compiler wrote."""
    return (path / FILE).is_file()


def read_artifact(folder: Path, weights: bool = True, trusted: bool = False) -> ArtifactSource:
    """Read an artifact for another cut; without `weights`, none need be there.

    `trusted`: whether Python files in the folder may run, if they register operators.
    Raises SourceError for one without its graph or weights, for one whose stages were edited, and for files that would
    have to run.
    """
    manifest = read_manifest(folder)
    _check_unedited(folder, manifest)
    found = cache(partial(stored_weights, folder, manifest))  # which may not be there
    with _on_path(folder):
        imported = _import_operators(folder, manifest, trusted)
        uncut = read_graph(folder, lambda name: _data(found(), name))
    held = [(name, weight.tensor.name) for weight in manifest.weights for name in weight.names]
    stored = found() if weights else {}
    named = {name: stored[weight].tensor.source for name, weight in held if weight in stored}
    added = [folder / added_adapter(name) for name in manifest.added_adapters]
    if weights and (lost := [file for file in added if not file.is_file()]):
        raise SourceError(f"{lost[0]}, an adapter that was added to {folder}, is missing; put it back")
    left = f"left out, with the weights: {', '.join(manifest.added_adapters)}, added since {folder} was compiled"
    return ArtifactSource(
        name=manifest.name,
        model=nn.Module(),
        args=(),
        kwargs={},
        dynamic_shapes=None,
        weights=Checkpoint(folder, named) if weights else {},
        notes=tuple(dict.fromkeys((*uncut.notes, *imported, *[left] * bool(added and not weights)))),
        made_up=uncut.made_up,
        files=tuple(folder / link.path for link in manifest.links),
        tokenizer=tuple(sorted((folder / TOKENIZER).glob("*"))),
        decoding=uncut.graph.decoding,
        adapters=uncut.graph.adapters,
        kept=uncut.graph,
        rows_padding=manifest.programs[0].padding,
        added=tuple(added) if weights else (),
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


def _data(found: Mapping[str, StoredWeight], name: str) -> torch.Tensor:
    if (stored := found.get(name)) is None:
        raise SourceError(f"no file of weights has the tensor {name} of its graph")
    return stored.tensor.source.read(stored.tensor.dtype)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """The folder on Python's path: files of the user's own lie in it."""
    sys.path.append(str(folder.resolve()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.resolve()))


def _import_operators(folder: Path, manifest: Manifest, trusted: bool) -> tuple[str, ...]:
    """Import what registers the operators from outside torch; returns notes on that.

    Raises SourceError for what cannot be imported, and for a file in the folder unless it is trusted.
    """
    missing = [operator for operator in manifest.operators if operator.module and not _is_registered(operator.name)]
    for operator in missing:
        if not trusted and _lies_in(folder, operator.module):
            raise SourceError(
                f"{folder} runs {operator.name}, which {operator.module} registers, a Python file in the folder, which "
                "is not run unasked: read it, then say --trust-remote-code"
            )
        try:
            import_module(operator.module)
        except Exception as e:
            what = f"pip install {operator.library}" if operator.library else "it lies in the folder"
            raise SourceError(
                f"{folder} runs {operator.name}, and {operator.module} cannot be imported: {e}; {what}"
            ) from e
    return tuple(f"imported {operator.module}, which registers {operator.name}" for operator in missing)


def _is_registered(operator: str) -> bool:
    """Whether torch knows an operator, as `torchvision::nms`."""
    namespace, _, name = operator.partition("::")
    return hasattr(getattr(torch.ops, namespace), name)


def _lies_in(folder: Path, module: str) -> bool:
    """Whether Python finds a module in the folder, which is the last place on its path."""
    top = module.partition(".")[0]
    found = find_spec(top) if top not in sys.modules else None
    places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
    return any(Path(place).is_relative_to(folder.resolve()) for place in places)
