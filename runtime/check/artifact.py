"""All that can be wrong with an artifact, each fault as a line that opens with its place: a file, or a stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from runtime.check.flow import check_flow
from runtime.check.source import check_source
from runtime.check.weights import check_holdings, check_tensors
from runtime.manifest import FILE, Manifest, file_hash, sample_hash, seal_of, terms_of


def faults(folder: Path, *, contents: bool = True) -> Iterator[str]:
    """What is wrong with an artifact; nothing if it is whole.

    Without `contents`, the bytes of weights are not read.  Raises ManifestError if the manifest cannot be read.
    """
    manifest, table = Manifest.read(folder), json.loads((folder / FILE).read_text())
    if table.get("seal") != seal_of(table):
        what = (
            "was changed after the compiler wrote it" if table.get("seal") else "has no seal: an older version wrote it"
        )
        yield f"{FILE}: it {what}"
    yield from _check_files(folder, manifest, contents=contents)
    yield from check_program(folder, manifest, contents=contents)


def check_program(folder: Path, manifest: Manifest, *, contents: bool) -> Iterator[str]:
    """What is wrong with the stages of one program."""
    terms = terms_of(manifest.symbols, manifest.guards, manifest.signature, manifest.microbatching)
    for i, stage in enumerate(manifest.stages):
        if stage.terms != terms:
            yield f"stage {i}: it was cut for other sizes, guards, microbatches or another signature than {FILE} has"
    yield from check_flow(manifest)
    yield from check_holdings(manifest)
    for stage in manifest.stages:
        yield from check_source(folder, stage, manifest)
        yield from check_tensors(folder, stage, contents=contents)


def _check_files(folder: Path, manifest: Manifest, *, contents: bool) -> Iterator[str]:
    """Each file is there and as it was written; so are the checkpoint's files that stages read."""
    weights = {stage.weights for stage in manifest.stages}
    without = weights.isdisjoint(manifest.files)  # compiled without weights
    wanted = {stage.module for stage in manifest.stages} | (set() if without else weights)
    yield from (f"{FILE}: it has no hash of {name}" for name in sorted(wanted - manifest.files.keys()))
    for name, digest in manifest.files.items():
        if not (folder / name).is_file():
            yield f"{name}: the file is missing"
        elif (contents or name not in weights) and file_hash(folder / name) != digest:
            yield f"{name}: it was changed after the compiler wrote it"
    for link in manifest.links:
        path = folder / link.path
        if not path.is_file() or path.stat().st_size != link.nbytes or sample_hash(path) != link.sample:
            yield f"{link.path}: the checkpoint's file {'has changed' if path.is_file() else 'is missing'}; put it back"
