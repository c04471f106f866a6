"""The data of a report, which the page draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from codegen.picture.dot import draw, to_svg
from codegen.picture.palette import colours
from codegen.report.notes import Notes, StageSource
from codegen.report.parts import COLUMNS, parts
from codegen.report.timeline import Span, Work, simulate
from ir.analysis.memory import stored_bytes
from ir.graph import State
from ir.numbers.summary import StageSummary, Summary
from ir.plan import Stage, StagePlan

Data = dict[str, Any]

_MORE = 8  # microbatches than stages: enough to see the pipeline fill, run and drain


def report_data(plan: StagePlan, summary: Summary, sources: Sequence[StageSource], notes: Notes) -> Data:
    """The report of a plan before any run of it; of several programs, the picture and its parts show the first."""
    first = plan.program(0)
    work = [asdict(_work(plan, stage, row)) for stage, row in zip(plan.stages, summary.stages, strict=True)]
    return {
        "summary": asdict(summary),
        "in_flight": plan.graph.split.in_flight,
        "placement": list(plan.graph.placement),
        "devices": [device.name for device in plan.cluster.devices],
        "colours": [_colours(stage.index) for stage in plan.stages],
        "programs": list(plan.programs),
        "picture": to_svg(draw(first)),
        "columns": COLUMNS,
        "parts": parts(first, sources, notes),
        "files": [{"name": source.file, "source": source.source} for source in sources],
        "memory": [_memory(plan, stage, row) for stage, row in zip(plan.stages, summary.stages, strict=True)],
        "passes": [asdict(note) for note in notes.passes],
        "work": work,
        "predicted": _stream(work, len(work) + _MORE),
        "measured": [],
    }


def measured(data: Data, spans: Sequence[Span]) -> Data:
    """The data with a measured run beside the prediction, as much of both as a page can show.

    Raises ValueError where the run has other stages than the plan.
    """
    stages = len(data["work"])
    if {span.stage for span in spans} != set(range(stages)):
        raise ValueError(f"the run has {len({span.stage for span in spans})} stages, and the plan {stages}")
    shown = min(stages + _MORE, 1 + max(span.microbatch for span in spans))
    seconds = [
        _typical([s.end - s.start for s in spans if s.stage == i and s.kind == "compute"]) for i in range(stages)
    ]
    return data | {
        "predicted": _stream(data["work"], shown),
        "measured": [_plain(span) for span in spans if span.microbatch < shown],
        "measured_seconds": seconds,
    }


def _work(plan: StagePlan, stage: Stage, row: StageSummary) -> Work:
    seconds = (row.receive_seconds, row.compute_seconds, row.send_seconds)
    return Work(plan.graph.placement[stage.index], *seconds, tuple(sorted({t.src for t in stage.recvs})))


def _stream(work: Sequence[Mapping[str, Any]], microbatches: int) -> list[list[Any]]:
    """As many in flight as keep every stage busy."""
    spans = simulate([Work(**w) for w in work], microbatches, in_flight=2 * len(work))
    return [_plain(span) for span in spans]


def _plain(span: Span) -> list[Any]:
    return [span.stage, span.microbatch, span.kind, float(f"{span.start:.7g}"), float(f"{span.end:.7g}")]


def _typical(seconds: Sequence[float]) -> float:
    """The median, which a slow first run does not move."""
    return sorted(seconds)[len(seconds) // 2]


def _memory(plan: StagePlan, stage: Stage, row: StageSummary) -> Data:
    state = stored_bytes(v for v in stage.stored if isinstance(v, State))
    return {
        "weights": stored_bytes(stage.stored) - state,
        "state": state,
        "activations": plan.graph.split.in_flight * row.activation_bytes,
        "limit": row.memory_bytes,
    }


def _colours(stage: int) -> Data:
    return {"light": asdict(colours(stage)), "dark": asdict(colours(stage, dark=True))}
