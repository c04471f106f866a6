"""The files of an artifact folder, and its manifest."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from codegen.inventory import held, model_nodes, model_weights, placed, returned, runs, tensor, updated
from codegen.lines.stage_file import StageFile
from codegen.picture import dot
from codegen.picture.detail import Detail
from codegen.pytree_json import tree_json
from codegen.report.data import report_data
from codegen.report.notes import NOTHING, Notes, StageSource
from codegen.report.page import REPORT, page
from codegen.spelling.literals import expr_source
from codegen.spelling.opaque_modules import copied_files
from codegen.text.stage_source import emit
from codegen.weights import StageTensor, Sums, linked_files, path_from, strides_of, write_copies, write_links
from ir.analysis.memory import stored_bytes
from ir.checkpoint.checkpoint import weight_source
from ir.checkpoint.tensors import Held
from ir.graph import Constant, Graph, Node, Param, State, Value
from ir.microbatching import Microbatching
from ir.objects.signature import Tree, output_names
from ir.plan import StagePlan
from ir.registration import Registration
from ir.summary import Summary
from runtime import manifest as m
from runtime.settings import torch_settings


def write_artifact(
    plan: StagePlan,
    folder: Path,
    model: str,
    weights: Mapping[str, torch.Tensor] | None,
    detail: Detail,
    summary: Summary,
    *,
    link: bool = False,
    notes: Notes = NOTHING,
    wrote: Callable[[int], object] = int,
) -> Iterator[Path]:
    """Fill a folder and yield each file when it is written, the manifest last.

    `weights` by fully qualified name, or None to write only code; with `link` they are a Checkpoint, and stages
    read its files in place of copies.  `summary` and `notes` are for the report.
    `wrote` is called with the number of bytes of each block of weights that is written.
    There is no graph.svg where graphviz's `dot` is missing.
    """
    hashes: dict[str, str] = {}
    entries: list[m.ProgramStage] = []
    sources: list[StageSource] = []
    linked: dict[int, tuple[Path, ...]] = {}
    for stage in plan.stages:
        file = StageFile(plan, stage, model)
        tensors = {} if weights is None else {name: _weight(v, weights) for v, name in file.fqns.items()}
        emitted = emit(file, linked=link, strided=bool(strides_of(tensors)))
        sources.append(StageSource(file.module, emitted.source, emitted.lines))
        (folder / file.module).write_text(sources[-1].source)
        yield folder / file.module
        sums: Sums = {}
        if weights is not None:
            linked[stage.index] = linked_files(tensors) if link else ()
            write = write_links if link else write_copies
            hashes[file.weights], sums = write(folder / file.weights, tensors, wrote)
            yield folder / file.weights
        entries.append(_stage(file, emitted.lines, sums))
    files = [StageFile(plan, stage, model) for stage in plan.stages]
    registering = (r.file for file in files for r in file.registrations if r.file is not None)
    for own in dict.fromkeys((*copied_files(plan.graph.whole), *registering)):
        yield Path(shutil.copy(own, folder))
    yield from _pictures(plan, folder, model, detail)
    report = folder / REPORT
    report.write_text(page(model, report_data(plan, summary, sources, notes)), encoding="utf-8")
    yield report
    written = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    hashes = {name: hashes.get(name) or m.file_hash(folder / name) for name in written}
    _manifest(plan, model, entries, hashes, _links(linked, folder), summary).sealed().write(folder)
    yield folder / m.FILE


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
            m.sample_hash(file),
            tuple(i for i, files in linked.items() if file in files),
        )
        for file in dict.fromkeys(file for files in linked.values() for file in files)
    )


def _manifest(
    plan: StagePlan,
    model: str,
    stages: Sequence[m.ProgramStage],
    hashes: dict[str, str],
    links: tuple[m.CheckpointFile, ...],
    summary: Summary,
) -> m.Manifest:
    files = [StageFile(plan, stage, model) for stage in plan.stages]
    return m.Manifest(
        name=model,
        programs=(_program(plan.graph, stages),),
        stages=tuple(m.StageEntry(f.weights, f.stage.device.name, stored_bytes(f.stage.stored)) for f in files),
        files=hashes,
        plan=asdict(summary),
        links=links,
        operators=_operators(plan, model),
        weights=model_weights(plan.graph),
        placement=placed(plan),
        settings=torch_settings(),
    )


def _program(graph: Graph, stages: Sequence[m.ProgramStage]) -> m.ProgramEntry:
    return m.ProgramEntry(
        name="main",
        inputs=tuple(map(tensor, graph.inputs)),
        outputs=tuple(tensor(v, name) for v, name in zip(graph.outputs, output_names(graph.signature), strict=True)),
        symbols=_symbols(graph),
        guards=_guards(graph),
        signature=_signature(graph),
        stages=tuple(stages),
        microbatching=_microbatching(graph.microbatching),
        layouts=graph.layouts,
        nodes=model_nodes(graph),
        returns=returned(graph),
        updates=updated(graph),
    )


def _operators(plan: StagePlan, model: str) -> tuple[m.Operator, ...]:
    """The operators from outside torch, and the stages that run them."""
    stages: dict[Registration, list[int]] = {}
    for stage in plan.stages:
        for found in StageFile(plan, stage, model).registrations:
            stages.setdefault(found, []).append(stage.index)
    return tuple(m.Operator(r.operator, r.module, r.library, r.version, tuple(on)) for r, on in stages.items())


def _microbatching(found: Microbatching) -> m.Microbatching:
    symbol = None if found.size is None else str(found.size)
    return m.Microbatching(symbol, found.inputs, found.outputs, found.reason)


def _symbols(graph: Graph) -> dict[str, m.Symbol]:
    return {str(s): m.Symbol(low, high, graph.hints[s]) for s, (low, high) in graph.ranges.items()}


def _guards(graph: Graph) -> tuple[str, ...]:
    return tuple(map(expr_source, graph.guards))


def _stage(file: StageFile, lines: Mapping[Node, int], sums: Sums) -> m.ProgramStage:
    graph = file.stage.graph
    signature = _signature(graph)
    return m.ProgramStage(
        module=file.module,
        cls=file.cls,
        receives=tuple(m.Receive(tensor(v), file.stage.source_of(v)) for v in graph.inputs),
        sizes=file.sizes,
        sends=tuple(m.Send(tensor(v), file.stage.targets_of(v), file.outputs_of(v)) for v in graph.outputs),
        state=tuple(file.fqns[s] for s in graph.states),
        runs=runs(file, lines),
        holds=held(file, sums),
        terms=m.terms_of(_symbols(graph), _guards(graph), signature, _microbatching(graph.microbatching)),
    )


def _is_default(parameter: inspect.Parameter, argument: Tree) -> bool:
    """Whether a call may leave an argument out; one that holds tensors has no say in this."""
    variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if variadic or argument.has_slots:
        return variadic
    value = argument.fill(())
    return type(value) is type(parameter.default) and value == parameter.default


def _signature(graph: Graph) -> m.CallSignature:
    signature = graph.signature
    arguments = signature.arguments
    given = dict(zip(arguments.spec.context, arguments.parts, strict=True))
    return m.CallSignature(
        parameters=tuple(m.Parameter(p.name, p.kind.name, _is_default(p, given[p.name])) for p in signature.parameters),
        arguments=tree_json(signature.arguments),
        returns=tree_json(signature.returns),
    )
