"""The manifest of a plan whose stages are written, and that of an artifact as a source."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from codegen.artifact.inventory import held, lines, model_nodes, model_weights, placed, returned, runs, tensor, updated
from codegen.artifact.pytree_json import tree_json
from codegen.artifact.weights import Sums
from codegen.lines.stage_file import StageFile
from codegen.spelling.literals import expr_source
from codegen.text.helpers import files_beside
from codegen.text.stage_source import Emitted
from ir.analysis.index_ranges import index_ranges
from ir.analysis.memory import stored_bytes
from ir.decoding import Decoding
from ir.errors import SourceError
from ir.graph import Graph
from ir.microbatching import Microbatching
from ir.numbers.summary import Summary
from ir.objects.signature import Tree, output_names
from ir.operators.registration import Registration
from ir.plan import StagePlan
from ir.sizes import DescribedValues, RowProductSum, ValueCount
from runtime.device.settings import torch_settings
from runtime.errors import ManifestError
from runtime.manifest import manifest as m
from runtime.manifest.promises import terms_of


@dataclass(frozen=True)
class WrittenStage:
    """The files of a stage as they were written."""

    files: tuple[StageFile, ...]  # of each program
    emitted: tuple[Emitted, ...]  # of each program
    digest: str = ""  # sha256 of the weights file; empty if there is none
    sums: Sums = field(default_factory=dict)
    links: tuple[Path, ...] = ()  # the checkpoint's files that the stage reads

    @property
    def weights(self) -> str:
        """The name of the weights file."""
        return self.files[0].weights

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files of its own that there are."""
        return (*(file.module for file in self.files), *[self.weights] * bool(self.digest))

    @property
    def helpers(self) -> dict[str, str]:
        """The files that its modules import from their own folder: the text of each, by name."""
        return {name: text for file in self.files for name, text in files_beside(file).items()}


def read_manifest(folder: Path) -> m.Manifest:
    """The manifest of an artifact.  Raises SourceError for a folder that is none, or of another version."""
    try:
        return m.Manifest.read(folder)
    except ManifestError as e:
        raise SourceError(str(e)) from e


def manifest_of(
    plan: StagePlan,
    model: str,
    stages: Sequence[WrittenStage],
    links: tuple[m.CheckpointFile, ...],
    summary: Summary,
    padding: m.Padding,
) -> m.Manifest:
    """The manifest of a plan, but for the sha256 of its files.  `padding`: of one program."""
    entries = zip(stages, plan.stages, strict=True)
    return m.Manifest(
        name=model,
        programs=tuple(
            _program(plan, i, [_stage(stage, i) for stage in stages], padding) for i in range(len(plan.programs))
        ),
        stages=tuple(m.StageEntry(w.weights, stage.device.name, stored_bytes(stage.stored)) for w, stage in entries),
        files={},
        plan=asdict(summary),
        links=links,
        operators=_operators(stages),
        helpers=tuple(sorted({name for stage in stages for name in stage.helpers})),
        weights=model_weights(plan.graph),
        placement=placed(plan),
        settings=torch_settings(keeps_modules=bool(plan.graph.whole)),
        generation=_generation(plan.graph.decoding),
        adapters=plan.graph.adapters,
    )


def _generation(found: Decoding) -> m.Generation:
    named = {field.name: getattr(found, field.name) for field in fields(m.Generation)}
    media = {name: m.MediaPlaces(**asdict(places)) for name, places in found.media.items()}
    return m.Generation(**{**named, "defaults": dict(found.defaults), "media": media})


def _program(plan: StagePlan, index: int, stages: Sequence[m.ProgramStage], padding: m.Padding) -> m.ProgramEntry:
    graph = plan.program(index).graph
    conditions = [dict(program.condition) for program in plan.graph.programs] or [{}]
    return m.ProgramEntry(
        name=plan.programs[index],
        inputs=tuple(map(tensor, graph.inputs)),
        outputs=tuple(tensor(v, name) for v, name in zip(graph.outputs, output_names(graph.signature), strict=True)),
        symbols=_symbols(graph),
        guards=_guards(graph),
        signature=_signature(graph),
        stages=tuple(stages),
        condition=conditions[index],
        microbatching=_microbatching(graph.microbatching),
        padding=padding,
        layouts=graph.layouts,
        nodes=model_nodes(graph),
        returns=returned(graph),
        updates=updated(graph),
        index_ranges=index_ranges(graph),
        counts=tuple(
            m.CountedValue(c.input, c.value, expr_source(c.count), c.images)
            for c in graph.counts
            if isinstance(c, ValueCount)
        ),
        row_products=tuple(
            m.RowProducts(c.input, c.multiples, expr_source(c.count))
            for c in graph.counts
            if isinstance(c, RowProductSum)
        ),
        described=tuple(
            m.DescribedPlaces(c.input, c.value, c.mask, c.rows, c.divisors, c.runs, tuple(map(expr_source, c.most)))
            for c in graph.counts
            if isinstance(c, DescribedValues)
        ),
    )


def _operators(stages: Sequence[WrittenStage]) -> tuple[m.Operator, ...]:
    """The operators from outside torch, and the stages that run them."""
    found: dict[Registration, dict[int, None]] = {}
    for index, stage in enumerate(stages):
        for registration in (r for file in stage.files for r in file.registrations):
            found.setdefault(registration, {})[index] = None
    return tuple(m.Operator(r.operator, r.module, r.library, r.version, tuple(on)) for r, on in found.items())


def _microbatching(found: Microbatching) -> m.Microbatching:
    symbol = None if found.size is None else str(found.size)
    return m.Microbatching(symbol, found.inputs, found.outputs, found.reason)


def _symbols(graph: Graph) -> dict[str, m.Symbol]:
    return {str(s): m.Symbol(low, high, graph.hints[s]) for s, (low, high) in graph.ranges.items()}


def _guards(graph: Graph) -> tuple[str, ...]:
    return tuple(map(expr_source, graph.guards))


def _stage(stage: WrittenStage, program: int) -> m.ProgramStage:
    file, emitted = stage.files[program], stage.emitted[program]
    graph = file.stage.graph
    signature = _signature(graph)
    return m.ProgramStage(
        module=file.module,
        cls=file.cls,
        receives=tuple(m.Receive(tensor(v), file.stage.source_of(v)) for v in graph.inputs),
        sizes=file.sizes,
        sends=tuple(m.Send(tensor(v), file.stage.targets_of(v), file.outputs_of(v)) for v in graph.outputs),
        state=tuple(file.fqns[s] for s in graph.states),
        runs=runs(file, emitted.sites),
        holds=held(file, stage.sums),
        terms=terms_of(_symbols(graph), _guards(graph), signature, _microbatching(graph.microbatching)),
        lines=lines(emitted.source),
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
