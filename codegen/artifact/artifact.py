"""The files of an artifact folder, and its manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from codegen.artifact.graph_file import held_data, write_graph
from codegen.artifact.manifest import WrittenStage, manifest_of
from codegen.artifact.own_files import own_files
from codegen.artifact.weights import StageTensor, linked_files, path_from, strides_of, write_copies, write_links
from codegen.lines.stage_file import StageFile, stage_files
from codegen.picture import dot
from codegen.picture.detail import Detail
from codegen.report.data import report_data
from codegen.report.notes import Notes, StageSource
from codegen.report.page import REPORT, page
from codegen.spelling.opaque_modules import imported_modules
from codegen.text.stage_source import Emitted, emit_all
from ir.checkpoint.checkpoint import weight_source
from ir.checkpoint.tensors import Held
from ir.graph import Constant, Param, State, Value
from ir.numbers.summary import Summary
from ir.plan import StagePlan
from ir.process.shared_work import shared_calls
from ir.serialized.graph_table import Uncut
from runtime.manifest import manifest as m
from runtime.manifest.digests import file_hash, sample_hash
from runtime.manifest.promises import with_promises

_UNPADDED = m.Padding()


def write_artifact(
    plan: StagePlan,
    folder: Path,
    model: str,
    weights: Mapping[str, torch.Tensor] | None,
    detail: Detail,
    summary: Summary,
    *,
    link: bool = False,
    notes: Callable[[], Notes] = Notes,
    padding: m.Padding = _UNPADDED,
    uncut: Uncut | None = None,
    wrote: Callable[[int], object] = int,
) -> Iterator[Path]:
    """Fill a folder and yield each file when it is written, the manifest last.

    `weights` by fully qualified name, or None to write only code; with `link` they are a Checkpoint, and stages
    read its files in place of copies.  `summary` and what `notes` returns are for the report; `padding` is for the
    manifest; `uncut` is the graph for another cut.
    `wrote` is called with the number of bytes of each block of weights that is written.
    There is no graph.svg where graphviz's `dot` is missing.
    """
    stages: list[WrittenStage] = []
    for stage in _write_stages(plan, folder, model, weights, wrote, link=link):
        stages.append(stage)
        yield from (folder / name for name in stage.names)
    yield from _write_imported(plan, folder, stages)

    def manifest() -> m.Manifest:
        linked = {i: stage.links for i, stage in enumerate(stages)}
        return with_promises(manifest_of(plan, model, stages, _links(linked, folder), summary, padding))

    def report() -> list[Path]:
        text = page(model, report_data(plan, summary, _sources(stages), notes()))
        (folder / REPORT).write_text(text, encoding="utf-8")
        return [folder / REPORT]

    def graph() -> list[Path]:
        held = {} if weights is None else held_data(plan)
        uncut_graph = () if uncut is None else write_graph(folder, uncut, held)
        return [*uncut_graph, *_pictures(plan.program(0), folder, model, detail)]

    entries, reported, pictured = shared_calls((manifest, report, graph), len(plan.graph.nodes))
    yield from (*pictured, *reported)
    replace(entries, files=_hashes(folder, stages)).write_sealed(folder)
    yield folder / m.FILE


def _write_imported(plan: StagePlan, folder: Path, stages: Sequence[WrittenStage]) -> Iterator[Path]:
    """Write what stage files import from their own folder: copies of files of the user's, and helpers."""
    registering = (r.own for stage in stages for file in stage.files for r in file.registrations if r.own)
    for place, own in own_files([*imported_modules(plan.graph.whole), *registering]).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        yield Path(shutil.copy(own, folder / place))
    for name, text in {name: text for stage in stages for name, text in stage.helpers.items()}.items():
        (folder / name).write_text(text, encoding="utf-8")
        yield folder / name


def _hashes(folder: Path, stages: Sequence[WrittenStage]) -> dict[str, str]:
    """The sha256 of each file, by its path in the folder."""
    known = {stage.weights: stage.digest for stage in stages}
    found = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    return {name: known.get(name) or file_hash(folder / name) for name in found}


def _write_stages(
    plan: StagePlan,
    folder: Path,
    model: str,
    weights: Mapping[str, torch.Tensor] | None,
    wrote: Callable[[int], object],
    *,
    link: bool,
) -> Iterator[WrittenStage]:
    """Write the modules of all stages, and their weights, unless there are none to write."""
    stages = [*zip(*stage_files(plan, model), strict=True)]
    tensors = [None if weights is None else _tensors(files, weights) for files in stages]
    strided = [bool(own and strides_of(own)) for own in tensors]
    pairs = [(file, own) for files, own in zip(stages, strided, strict=True) for file in files]
    emitted = iter(emit_all([file for file, _ in pairs], link, [own for _, own in pairs]))
    for files, own in zip(stages, tensors, strict=True):
        yield _write_stage(folder, files, own, tuple(islice(emitted, len(files))), wrote, link=link)


def _write_stage(
    folder: Path,
    files: Sequence[StageFile],
    tensors: Mapping[str, StageTensor] | None,
    emitted: tuple[Emitted, ...],
    wrote: Callable[[int], object],
    *,
    link: bool,
) -> WrittenStage:
    """Write the modules of a stage, one a program, and its `tensors`, unless there are none to write."""
    for file, one in zip(files, emitted, strict=True):
        (folder / file.module).write_text(one.source)
    if tensors is None:
        return WrittenStage(tuple(files), emitted)
    write = write_links if link else write_copies
    digest, sums = write(folder / files[0].weights, tensors, wrote)
    return WrittenStage(tuple(files), emitted, digest, sums, linked_files(tensors) if link else ())


def _tensors(files: Sequence[StageFile], weights: Mapping[str, torch.Tensor]) -> dict[str, StageTensor]:
    """The tensors of a stage, those of all programs, by name."""
    named = {name: value for file in files for value, name in file.fqns.items()}
    pools = {name for name, value in named.items() if isinstance(value, State) and value.zeros}
    return {name: _weight(value, weights) for name, value in named.items() if name not in pools}


def _sources(stages: Sequence[WrittenStage]) -> list[StageSource]:
    """The files of the first program, which the report is about, and then those of the others."""
    programs = zip(*(zip(stage.files, stage.emitted, strict=True) for stage in stages), strict=True)
    return [StageSource(file.module, one.source, one.lines) for program in programs for file, one in program]


def _pictures(plan: StagePlan, folder: Path, model: str, detail: Detail) -> Iterator[Path]:
    picture = folder / "graph.dot"
    picture.write_text(dot.draw(plan, detail, model))
    yield picture
    if dot.render(picture.read_text(), folder / "graph.svg"):
        yield folder / "graph.svg"


def _weight(value: Value, weights: Mapping[str, torch.Tensor]) -> StageTensor:
    match value:
        case Param() | State(data=None):
            return StageTensor(weight_source(weights, value.fqns), value.type.dtype)
        case Constant(data=torch.Tensor() as data) | State(data=torch.Tensor() as data):
            return StageTensor(Held(data), value.type.dtype)
    raise AssertionError(value)


def _links(linked: Mapping[int, tuple[Path, ...]], folder: Path) -> tuple[m.CheckpointFile, ...]:
    """The checkpoint's files, and which stages read them."""
    return tuple(
        m.CheckpointFile(
            path_from(folder, file),
            file.stat().st_size,
            sample_hash(file),
            tuple(i for i, files in linked.items() if file in files),
        )
        for file in dict.fromkeys(file for files in linked.values() for file in files)
    )
