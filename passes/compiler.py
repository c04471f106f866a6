"""From a source to an artifact: what the command line and the Python calls share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from codegen.artifact import write_artifact
from codegen.picture.dot import Detail
from codegen.report.notes import Notes, PassNote
from ir.capture import capture
from ir.checkpoint.checkpoint import check_linked, check_weights
from ir.machine.cluster import Cluster
from ir.plan import StagePlan, plan_stages
from ir.sources import Source
from ir.summary import Summary
from passes.changes import changes, contents
from passes.pipeline import Pipeline, Step
from passes.summary import node_seconds, summarize

EXPORT = "export"  # the step that captures the model, before the first pass


class Weights(str, Enum):
    """What becomes of the weights."""

    copy = "copy"  # each stage's slice is written beside it
    link = "link"  # each stage reads its slice from the checkpoint's own files
    none = "none"  # only the code and the plan


@dataclass(frozen=True)
class Compiled:
    """What came of a source."""

    plan: StagePlan
    summary: Summary
    steps: tuple[Step, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Compiler:
    """How sources are cut: by which passes, for which machine, and what is written."""

    passes: Pipeline
    machine: Cluster
    weights: Weights = Weights.copy
    detail: Detail = Detail.modules

    def steps(self, source: Source) -> Iterator[Step]:
        """Capture a source, then run the passes over it.  Raises CompileError."""
        if self.weights is Weights.link:
            check_linked(source.weights)
        start = perf_counter()
        graph = capture(
            source.model, source.args, source.kwargs, dynamic_shapes=source.dynamic_shapes, soft=source.soft
        )
        if self.weights is not Weights.none:
            check_weights(graph, source.weights)
        yield Step(EXPORT, graph, perf_counter() - start)
        yield from self.passes.run(graph, self.machine)

    def write(self, source: Source, steps: Sequence[Step], folder: Path) -> Compiled:
        """Plan the stages of what the last step left, and fill a folder with them."""
        plan = plan_stages(steps[-1].graph, self.machine)
        summary = summarize(plan, source.name, (*source.notes, *plan.graph.notes))
        weights = None if self.weights is Weights.none else source.weights
        link = self.weights is Weights.link
        notes = Notes(tuple(_notes(steps)), node_seconds(plan))
        files = tuple(write_artifact(plan, folder, source.name, weights, self.detail, summary, link=link, notes=notes))
        return Compiled(plan, summary, tuple(steps), files)


def _notes(steps: Sequence[Step]) -> Iterator[PassNote]:
    """What each step did, for the report."""
    yield PassNote(steps[0].name, steps[0].seconds, contents(steps[0].graph))
    for before, after in pairwise(steps):
        yield PassNote(after.name, after.seconds, changes(before.graph, after.graph))
