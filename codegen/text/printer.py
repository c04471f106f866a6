"""Prints planned lines and classes as source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from codegen.lines.class_plan import ClassPlan, FunctionPlan, KernelPlan
from codegen.lines.classes import FUSED
from codegen.lines.line import INDENT, Def, For, Line, calls_in
from codegen.spelling.expressions import source
from ir.graph import Call


@dataclass(frozen=True)
class SourceLine:
    """A line of source, and the calls of the graph that it makes, each with its source."""

    text: str
    calls: tuple[tuple[Call, str], ...] = ()


def text_rows(lines: Iterable[str]) -> Iterator[SourceLine]:
    """Lines that are text already."""
    return map(SourceLine, lines)


def class_rows(plan: ClassPlan) -> Iterator[SourceLine]:
    """A class: its head with its origin, and its functions."""
    beside = f"  # {plan.origin}" if plan.origin and not plan.origin_above else ""
    if plan.origin_above:
        yield SourceLine(f"# {plan.origin}")
    yield SourceLine(plan.head + beside)
    for i, function in enumerate(plan.functions):
        yield from [SourceLine("")] * (i > 0)
        yield from _function_rows(function)


def kernel_rows(plan: KernelPlan) -> Iterator[SourceLine]:
    """A function that runs as one kernel."""
    yield SourceLine(f"@{FUSED}")
    yield SourceLine(plan.head)
    yield from line_rows(plan.body, 1)


def _function_rows(function: FunctionPlan) -> Iterator[SourceLine]:
    if function.decorator:
        yield SourceLine(_indented(function.decorator, 1))
    yield SourceLine(_indented(function.head, 1))
    yield from line_rows(function.body, 2)


def line_rows(lines: Sequence[Line], depth: int) -> Iterator[SourceLine]:
    """Lines that are `depth` blocks deep."""
    for line in lines:
        calls = tuple((call, source(expression)) for call, expression in calls_in(line))
        yield SourceLine(_indented(line.source, depth), calls)
        if isinstance(line, (For, Def)):
            yield from line_rows(line.body, depth + 1)


def _indented(text: str, depth: int) -> str:
    return " " * INDENT * depth + text


@dataclass(frozen=True)
class CallSite:
    """The place of a call in a source: the line, and the call's own source."""

    line: int
    text: str


def joined(rows: Iterable[SourceLine]) -> tuple[str, Mapping[Call, CallSite]]:
    """The source, and the site of each call."""
    rows = list(rows)
    sites = {call: CallSite(number, text) for number, row in enumerate(rows, 1) for call, text in row.calls}
    return "".join(f"{row.text}\n" for row in rows), sites
