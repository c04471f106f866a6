"""The graph of a source: a program for each of its calls."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

from ir.analysis.programs import merged
from ir.capture import capture
from ir.capture.kept.once import capture_once
from ir.capture.warn import heard
from ir.errors import CaptureError, CompileError
from ir.graph import Graph
from ir.objects.signature import fixed_inputs
from ir.sources import Source
from ir.sources.kept import keep_source
from ir.sources.source import Variant


def captured(source: Source, cache: bool = False) -> tuple[Graph, bool]:
    """The graph of a source, of one program or of several where it has variants; whether it was kept from another run.

    `cache`: whether graphs are kept from one run to the next.

    Raises CaptureError, and CompileError for two variants that take the same calls.
    """
    if source.kept is not None:
        return source.kept, True
    with heard() as messages:
        graph, kept = _captured(source, cache)
    if cache:
        keep_source(source, graph, messages)
    return graph, kept


def _captured(source: Source, cache: bool) -> tuple[Graph, bool]:
    programs: list[tuple[Variant, Graph]] = []
    kept, left_out = True, list[str]()
    for call in source.calls:
        try:
            terms: Any = dict(dynamic_shapes=call.dynamic_shapes, soft=source.soft, fix=call.fix)
            given = source.model, call.args, call.kwargs
            graph, known = capture_once(*given, **terms) if cache else (capture(*given, **terms), False)
        except CaptureError as e:
            if call.optional:
                left_out.append(f"there is no program {call.name}: {e}")
                continue
            raise e if not source.variants else CaptureError(f"in the variant {call.name}: {e}") from e
        programs.append((call, replace(graph, notes=()) if call.optional else graph))
        kept = kept and known
    for (one, first), (other, second) in combinations(programs, 2):
        if _taken(first) == _taken(second):
            raise CompileError(
                f"the variants {one.name} and {other.name} take the same calls; "
                "name the input whose values tell them apart with --fix"
            )
    named = [(call.name, fixed_inputs(graph.signature.arguments), call.share, graph) for call, graph in programs]
    union = merged(named)
    return replace(union, notes=(*union.notes, *left_out)), kept


def _taken(graph: Graph) -> Any:
    """The requirements on a call: containers, fixed values, and the types of tensors."""
    return graph.signature.arguments, [v.type for v in graph.inputs], graph.ranges, graph.guards
