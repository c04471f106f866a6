"""All that can be wrong with an artifact, each fault as a line that opens with its place: a file, or a stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from runtime.check.flow import check_flow
from runtime.check.source import check_source
from runtime.check.weights import check_holdings, check_memory, check_tensors
from runtime.engine.routes import routes
from runtime.errors import ManifestError
from runtime.manifest.digests import file_hash, sample_hash
from runtime.manifest.manifest import FILE, Manifest, ProgramEntry, is_sealed
from runtime.manifest.promises import promise_of, terms_of


def faults(folder: Path, *, contents: bool = True) -> Iterator[str]:
    """The faults of an artifact; none if it is whole.

    Without `contents`, the bytes of weights are not read.  Raises ManifestError if the manifest cannot be read.
    """
    manifest, table = Manifest.read(folder), json.loads((folder / FILE).read_text())
    if not is_sealed(folder):
        yield f"{FILE}: it was changed after the compiler wrote it, or an older version wrote it"
    try:
        # Every message goes along every route, in one order: stages block only where one receives from itself or a
        # later one, which is refused here, or where a route has no room for a batch.
        assert all(route.capacity is None or route.capacity > 0 for route in routes(manifest))
    except ManifestError as e:
        yield f"{FILE}: {str(e).partition(';')[0]}"
    yield from _check_files(folder, manifest, contents=contents)
    lines = table["schema"] == manifest.schema  # older ones have none to compare with
    for program in manifest.programs:
        place = f"program {program.name}: " if len(manifest.programs) > 1 else ""
        yield from (f"{place}{fault}" for fault in check_program(folder, program, manifest, lines=lines))
    yield from check_memory(manifest)
    for i, stage in enumerate(manifest.stages):
        if manifest.placement[i : i + 1] != (stage.device,):
            yield f"stage {i}: it is for {stage.device}, and was placed on {manifest.placement[i : i + 1]}"
        holds = {name: held for program in manifest.programs for name, held in program.stages[i].holds.items()}
        summed = stage.weights in manifest.files or any(held.crc32 for held in holds.values())  # or others wrote it
        yield from check_tensors(folder / stage.weights, holds, contents=contents and summed)


def check_program(folder: Path, program: ProgramEntry, manifest: Manifest, *, lines: bool) -> Iterator[str]:
    """The faults in what the stages do in one program.  `lines`: whether those of their files are compared."""
    if program.promise not in ("", promise_of(manifest, program)):
        yield f"{FILE}: calls take or return something else, or in another order, than the compiler wrote"
    if not all(node.makes for node in program.nodes):
        yield f"{FILE}: it lists nodes that make nothing"
        return
    terms = terms_of(program.symbols, program.guards, program.signature, program.microbatching)
    for i, stage in enumerate(program.stages):
        if stage.terms != terms:
            yield f"stage {i}: it was cut for other sizes, guards, microbatches or another signature than {FILE} has"
        yield from check_source(folder, stage, lines=lines)
    yield from check_flow(program)
    yield from check_holdings(program, manifest.weights)


def _check_files(folder: Path, manifest: Manifest, *, contents: bool) -> Iterator[str]:
    """Each file is there and as it was written; so are the checkpoint's files that stages read."""
    weights = {stage.weights for stage in manifest.stages}
    without = weights.isdisjoint(manifest.files)  # compiled without weights
    modules = {stage.module for program in manifest.programs for stage in program.stages}
    wanted = modules | {*manifest.helpers} | (set() if without else weights)
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
