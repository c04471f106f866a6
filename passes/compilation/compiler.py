"""From a source to an artifact: what the command line and the Python calls share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from codegen.artifact.added_adapters import carry_adapters
from codegen.artifact.artifact import write_artifact
from codegen.artifact.cut_again import ArtifactSource
from codegen.picture.detail import Detail
from codegen.report.notes import Notes, PassNote
from ir.analysis.memory import stored_bytes
from ir.analysis.random_numbers import may_draw
from ir.checkpoint.fitting import check_linked, check_weights
from ir.errors import InternalError, OutputError
from ir.graph import Call, Graph
from ir.machine.cluster import Cluster
from ir.numbers.summary import Summary
from ir.plan import StagePlan, plan_stages
from ir.serialized.graph_table import Uncut
from ir.sources import Source
from ir.text.units import format_bytes
from passes.compilation.changes import changes, contents
from passes.compilation.padding import proven_padding
from passes.compilation.programs import captured
from passes.compilation.sizes.pools import Room, room_line, usual_steps, with_room
from passes.compilation.sizes.workload import with_workload
from passes.compilation.summary import node_seconds, summarize
from passes.options.options import Weights
from passes.options.sizes import WantedCall
from passes.pipeline import PassPipeline, PassResult
from runtime.check.artifact import faults
from runtime.manifest.manifest import TOKENIZER, Padding

EXPORT = "export"  # the step that captures the model, before the first pass


@dataclass(frozen=True)
class Compiled:
    """The result of compiling a source."""

    plan: StagePlan
    summary: Summary
    steps: tuple[PassResult, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Compiler:
    """The way in which sources are cut: by which passes, for which machine, and what is written."""

    passes: PassPipeline
    machine: Cluster
    weights: Weights = Weights.copy
    detail: Detail = Detail.modules
    workload: tuple[WantedCall, ...] = ()  # the sizes to cut for, in place of those of the example
    room: Room = Room()  # that a decoder's pools are to have
    cache: bool = False  # whether graphs are kept from one run to the next
    tell: Callable[[str], object] = str  # about progress

    def steps(self, source: Source) -> Iterator[PassResult]:
        """Capture a source, then run the passes over it.  Raises CompileError."""
        if self.weights is Weights.link:
            check_linked(source.weights)
        start = perf_counter()
        graph = self.export(source)
        if self.weights is not Weights.none:
            check_weights(graph, source.weights)
        yield PassResult(EXPORT, graph, perf_counter() - start)
        yield from self.passes.run(graph, self.machine)

    def export(self, source: Source) -> Graph:
        """The graph of a source, to be cut for the workload.  Raises CompileError."""
        graph, kept = captured(source, self.cache)
        graph = replace(graph, adapters=source.adapters or graph.adapters)
        if kept and not isinstance(source, ArtifactSource):
            self.tell("the export is kept from an earlier run; --no-cache exports anew")
        if source.decoding.page:
            graph = with_room(graph, source.decoding, self.room, self.machine)
            workload = self.workload or usual_steps(graph)
            return replace(with_workload(graph, workload), made_up=not self.workload)
        return with_workload(graph, self.workload, source.made_up)

    def plan(self, steps: Sequence[PassResult]) -> StagePlan:
        """The stages of what the last step left."""
        return plan_stages(steps[-1].graph, self.machine)

    def write(
        self,
        source: Source,
        steps: Sequence[PassResult],
        folder: Path,
        wrote: Callable[[int], object] = int,
        plan: StagePlan | None = None,
    ) -> Compiled:
        """Fill a folder with the stages of `plan`, by default those of the last step.

        `wrote` is called with the number of bytes of each block of weights that is written.
        Raises OutputError, before anything is written, where the disk has no room for the weights.
        """
        plan = plan or self.plan(steps)
        check_room(folder, copied_bytes(plan, self.weights))
        lines = [line for line in (room_line(plan.graph), _random_line(plan)) if line]
        for file in source.tokenizer:
            (folder / TOKENIZER).mkdir(exist_ok=True)
            shutil.copy(file, folder / TOKENIZER)
        summary = summarize(plan, source.name, (*source.all_notes, *plan.graph.notes, *lines))
        weights = None if self.weights is Weights.none else source.weights
        link = self.weights is Weights.link
        padding = Padding(reason="there were no weights to try it with") if weights is None else _padding(plan, source)
        uncut = Uncut(_to_cut_again(steps[0].graph), source.all_notes, source.made_up)
        written = write_artifact(
            plan,
            folder,
            source.name,
            weights,
            self.detail,
            summary,
            link=link,
            notes=lambda: Notes(tuple(_notes(steps)), node_seconds(plan.program(0))),
            padding=padding,
            uncut=uncut,
            wrote=wrote,
        )
        files = [*written, *(carry_adapters(source.added, folder) if isinstance(source, ArtifactSource) else ())]
        compiled = Compiled(plan, summary, tuple(steps), tuple(files))
        check_whole(folder)
        return compiled


def _to_cut_again(graph: Graph) -> Graph:
    """A captured graph without what only this cut is for."""
    return replace(graph, workload=(), made_up=False, decoding=replace(graph.decoding, most_texts=0))


def _padding(plan: StagePlan, source: Source) -> Padding:
    if isinstance(source, ArtifactSource):
        return source.rows_padding
    example = () if plan.graph.programs else source.example(plan.graph.signature)
    return proven_padding(plan.graph, example, source.weights)


def check_whole(folder: Path) -> None:
    """Raise InternalError where an artifact is not whole.

    The bytes of its weights are hashed as they are written.
    """
    found = next(faults(folder, contents=False), None)
    if found is not None:
        raise InternalError(f"the artifact is not whole: {found}")


def copied_bytes(plan: StagePlan, weights: Weights) -> int:
    """Bytes of the weights that are written beside the stages."""
    pools = {state for state in plan.graph.states if state.zeros}
    stored = (stored_bytes(v for v in stage.stored if v not in pools) for stage in plan.stages)
    return sum(stored) if weights is Weights.copy else 0


def check_room(folder: Path, nbytes: int) -> None:
    """Raise OutputError where the disk of `folder` has less than `nbytes` free."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutputError(
            f"the weights of the stages need {nbytes:,} bytes ({format_bytes(nbytes)}), and the disk has {free:,} "
            f"({format_bytes(free)}) free; make room, or use --weights link, which copies nothing"
        )


def _notes(steps: Sequence[PassResult]) -> Iterator[PassNote]:
    """A note on what each step did, for the report."""
    yield PassNote(steps[0].name, steps[0].seconds, contents(steps[0].graph))
    for before, after in pairwise(steps):
        yield PassNote(after.name, after.seconds, changes(before.graph, after.graph))


def _random_line(plan: StagePlan) -> str:
    """A note where several stages draw random numbers by torch's own operators; empty elsewhere."""
    drawing = [str(s.index) for s in plan.stages if any(_draws(n) for n in s.graph.nodes if isinstance(n, Call))]
    if len(drawing) < 2:
        return ""
    return (
        f"stages {', '.join(drawing[:-1])} and {drawing[-1]} draw random numbers: under a seed these are not the "
        "model's, unless the stages run in one process and each waits for the one before"
    )


def _draws(call: Call) -> bool:
    return call.op.namespace == "aten" and may_draw(call)
