"""The source of a stage: one Python file that needs nothing but torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from codegen.lines.file_plan import FilePlan, KnownChoices, plan_file
from codegen.lines.stage_file import StageFile
from codegen.text.formatting import formatted
from codegen.text.header import head, tables
from codegen.text.helpers import HELPERS
from codegen.text.printer import CallSite, SourceLine, class_rows, joined, kernel_rows, text_rows
from codegen.text.weight_reader import load_method, reader
from ir.graph import Call, Node
from ir.operators.higher_order import with_inner
from ir.process.shared_work import shared_work
from runtime.manifest.lines import statements


@dataclass(frozen=True)
class Emitted:
    """The source of a stage file, and the site of each node."""

    source: str
    sites: Mapping[Node, CallSite]

    @property
    def lines(self) -> Mapping[Node, int]:
        """The line of each node."""
        return {node: site.line for node, site in self.sites.items()}


def emit(file: StageFile, linked: bool = False, strided: bool = False, chosen: KnownChoices | None = None) -> Emitted:
    """The source of a stage file, whose weights are copies, some `strided`, or `linked` to the checkpoint's files.

    Its classes are those that were `chosen` for a stage like it.
    """
    plan = plan_file(file, chosen)
    body = list(_body(plan))
    top = text_rows([*head(file, linked, joined(body)[0]), "", *tables(file)])
    shared, pooled = bool(file.program), bool(file.rows)
    source, placed = joined([*top, *body, *text_rows(["", "", *reader(linked, strided, shared, pooled)])])
    tidy = formatted(source)
    moved = _moved(source, tidy)
    sites = {**placed, **{call: placed[other] for call, other in plan.same_lines.items() if other in placed}}
    return Emitted(tidy, {c: replace(p, line=moved[p.line]) for c, p in sites.items() if p.line in moved})


def emit_all(files: Sequence[StageFile], linked: bool, strided: Sequence[bool]) -> list[Emitted]:
    """The sources of stage files, each of which may have weights that are `strided`, or all `linked` ones.

    Calls that stand for those of all turns of a loop have no places.
    """
    asked, chosen = list(zip(files, strided, strict=True)), KnownChoices()

    def numbered(asked: tuple[StageFile, bool]) -> tuple[str, dict[int, CallSite]]:
        file, own = asked
        emitted = emit(file, linked, own, chosen)
        number: dict[Node, int] = {call: i for i, call in enumerate(_all_calls(file))}
        return emitted.source, {number[call]: site for call, site in emitted.sites.items() if call in number}

    found = shared_work(numbered, asked, sum(len(file.calls) for file in files))
    return [_emitted(file, *numbered) for file, numbered in zip(files, found, strict=True)]


def _emitted(file: StageFile, source: str, sites: Mapping[int, CallSite]) -> Emitted:
    calls = _all_calls(file)
    return Emitted(source, {calls[i]: site for i, site in sites.items()})


def _all_calls(file: StageFile) -> list[Call]:
    """The calls of a stage, those in functions that they run included."""
    return [call for outer in file.calls for call in with_inner(outer)]


def _body(plan: FilePlan) -> Iterator[SourceLine]:
    """Helpers and classes, each before those that use it; the stage comes last."""
    stage, *blocks = plan.classes
    opaque, needed = plan.file.opaque, plan.helpers
    for name in HELPERS:
        if name in needed:
            yield from text_rows(["", "", *HELPERS[name].splitlines()])
    if opaque.modules:
        yield from text_rows(["", "", *opaque.support(), "", *opaque.shared()])
    for kernel in plan.kernels:
        yield from (SourceLine(""), SourceLine(""), *kernel_rows(kernel))
    for block in reversed(blocks):
        yield from (SourceLine(""), SourceLine(""), *class_rows(block))
    yield from (SourceLine(""), SourceLine(""), *class_rows(stage), SourceLine(""))
    yield from text_rows(load_method(shared=bool(plan.file.program), rows=plan.file.rows))


def _moved(before: str, after: str) -> dict[int, int]:
    """The line to which the formatter moved each statement, by its first line before."""
    numbers = [[statement.lineno for statement in statements(ast.parse(text))] for text in (before, after)]
    return dict(zip(*numbers, strict=True))
