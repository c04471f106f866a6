"""Checkpoint folders whose graph an earlier run kept: found without making the model, nor importing its library.

What a model is depends on the folder, the options of reading it, and code.  The first two make the key.  Of the code,
whatever was loaded when the graph was made must be as it was, file by file, and the same libraries must be there.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from ir.capture.kept.fingerprint import Digest, Untold
from ir.capture.kept.store import find, keep
from ir.capture.paths import in_library
from ir.capture.warn import warn
from ir.graph import Graph
from ir.sources.source import Source, Variant

LIBRARY = "transformers"
MOST_ENTRIES = 10_000  # in a folder
LARGEST_TEXT = 1 << 20  # bytes of a file whose contents are read; of others the size and the time of change count
_VARIABLES = ("HF_", "PYTORCH", "TORCH", "TRANSFORMERS", "USE_")  # of the environment, that libraries look at
_PLACES = ("_DIR", "_HOME", "_CACHE")  # those that name folders, which torch itself sets, too


@dataclass(frozen=True)
class FileStamp:
    """A file as it was: its bytes, and the time of its last change in nanoseconds."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: str | Path) -> FileStamp:
        """Raises OSError where there is no such file."""
        status = os.stat(path)
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def holds(self) -> bool:
        try:
            return FileStamp.of(self.path) == self
        except OSError:
            return False


@dataclass(frozen=True)
class KeptSource:
    """A source with its graph in place of its model, the warnings that were given, and the code that was loaded."""

    source: Source
    warnings: tuple[str, ...]
    code: tuple[FileStamp, ...]


def key_of(folder: Path, terms: Sequence[Any], weights: Path | None = None) -> str:
    """The key of a folder that is read on these terms; empty where it cannot be told without making the model.

    `weights`: the file or folder of those in place of its own.  Where the model's library is imported already, it may
    have been changed in memory.
    """
    digest = Digest()
    try:
        library = find_spec(LIBRARY)
        files = [file for place in (folder, weights) if place is not None for file in _within(place)]
        if LIBRARY in sys.modules or library is None or not folder.is_dir() or len(files) > MOST_ENTRIES:
            return ""
        digest.add((str(folder), os.getcwd(), list(map(_content, files)), list(terms)))
        digest.add((platform.node(), library.origin, sys.flags.optimize, _environment(), list(_installed())))
        digest.add_surroundings()
    except (OSError, ValueError, Untold, RecursionError):  # ValueError: of a library without a spec
        return ""
    return digest.text


def find_source(key: str) -> Source | None:
    """The source that is kept under a key, with its graph; its warnings are given once more."""
    kept = find(key, KeptSource) if key else None
    if kept is None or not all(stamp.holds() for stamp in kept.code):
        return None
    for message in kept.warnings:
        warn(message)
    return kept.source


def keep_source(source: Source, graph: Graph, warnings: Sequence[str]) -> None:
    """Keep a source under its key, and its graph, unless that refers to the model, as it does to modules kept whole."""
    if not source.key or graph.whole:
        return
    alone = replace(
        source,
        model=nn.Module(),
        args=(),
        kwargs={},
        variants=tuple(map(_without_inputs, source.variants)),
        example_for=Source.example_for,
        quantized=Source.quantized,
        library=None,
        kept=graph,
        kept_example=() if graph.programs else source.example(graph.signature),
    )
    try:
        loaded = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
        code = tuple(FileStamp.of(file) for file in sorted(filter(os.path.isabs, loaded)))
    except OSError:  # a module whose file is gone by now
        return
    keep(source.key, KeptSource(alone, tuple(warnings), code))


def _without_inputs(variant: Variant) -> Variant:
    return replace(variant, args=(), kwargs={}, dynamic_shapes=None)


def _within(place: Path) -> list[Path]:
    """Files and folders in a folder, also behind links to others, or beside a file, as other ranks' and shards are.

    A few more than `MOST_ENTRIES` at most.
    """
    if not place.is_dir():
        return sorted(place.parent.iterdir())
    found = list[Path]()
    for inside, folders, files in os.walk(place, followlinks=True):
        found += [Path(inside, name) for name in (*folders, *files)]
        if len(found) > MOST_ENTRIES:
            break
    return sorted(found)


def _content(file: Path) -> tuple[object, ...]:
    """A small text by its bytes, another file by its size and the time of its last change, a folder by its name."""
    if not file.is_file():
        return (str(file),)
    if file.suffix == ".json" and file.stat().st_size <= LARGEST_TEXT:
        return str(file), file.read_bytes()
    return (FileStamp.of(file),)


def _environment() -> list[tuple[str, str]]:
    """The variables that may change what a model is."""
    named = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    return sorted((name, value) for name, value in named.items() if not name.endswith(_PLACES))


def _installed() -> Iterator[tuple[str, ...]]:
    """The names in each folder of installed libraries, which carry their versions: a new one may change others."""
    for place in sys.path:
        if os.path.isdir(place) and in_library(os.path.join(place, "")):
            yield (place, *sorted(os.listdir(place)))
