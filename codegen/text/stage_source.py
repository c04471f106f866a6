"""A Stage as one Python file that needs nothing but torch and safetensors."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codegen.lines.classes import ClassText, Writer, uses
from codegen.lines.init import NUMBERED
from codegen.lines.stage_file import StageFile
from codegen.spelling.opaque_modules import SUPPORT
from codegen.spelling.torch_modules import FROZEN, FROZEN_BATCH_NORM
from codegen.structure.program import Loop, Statement, Use, walk
from codegen.structure.reroll import Program, reroll
from codegen.text.header import emit_head, emit_tables
from codegen.text.source import Source, formatted
from codegen.text.weight_reader import emit_reader
from ir.graph import Call, Node

LONGEST = 54  # lines of a function, before the formatter breaks some of them; 60 after it
LONGEST_FILE = 195  # lines, if small classes alone make it longer
_WIDE = 90  # calls of a region that is sure to be longer than that


@dataclass(frozen=True)
class Emitted:
    """The source of a stage file, and the line in it of each node."""

    source: str
    lines: Mapping[Node, int]


def emit(file: StageFile, linked: bool = False, strided: bool = False) -> Emitted:
    """The source of a stage file, whose weights are copies, some `strided`, or `linked` to the checkpoint's files.

    Functions that are too long are split along the modules; where the file is, small classes that one module
    alone has are written out where it is called.
    """
    draft = _short_functions(file, frozenset(), frozenset())
    closed: frozenset[str] = frozenset()
    for path in _single(draft.program):
        if draft.height <= LONGEST_FILE:
            break
        other = _short_functions(file, draft.opened - {path}, closed | {path})
        if other.height < draft.height and other.longest <= max(LONGEST, draft.longest):
            draft, closed = other, closed | {path}
    return _assembled(draft, linked, strided)


def _short_functions(file: StageFile, opened: frozenset[str], closed: frozenset[str]) -> Draft:
    """A draft without `closed` as classes, where each function that is too long has been split, if it can be."""
    while True:
        program = reroll(file.stage.graph, file.fqns, opened, closed - opened)
        texts = Writer(file, program).classes_text()
        more = _to_open(texts, program) - opened
        if not more:
            return Draft(file, program, texts, opened)
        opened |= more


def _single(program: Program) -> list[str]:
    """The modules whose class no other module has, the smallest first."""
    count = Counter(u.block for body in (program.body, *(b.body for b in program.blocks)) for u in uses(body))
    return [b.path for b in sorted(program.blocks, key=lambda b: len(b.body)) if count[b] == 1]


@dataclass(frozen=True)
class Draft:
    """The classes of a file, before they are put together."""

    file: StageFile
    program: Program
    texts: Sequence[ClassText]
    opened: frozenset[str]  # the modules that are classes for the length of functions

    @property
    def longest(self) -> int:
        return max(text.longest for text in self.texts)

    @property
    def height(self) -> int:
        """About how many lines the file has."""
        return 90 + sum(text.source.height(0) + 2 for text in self.texts)


def _to_open(texts: Sequence[ClassText], program: Program) -> set[str]:
    """The modules to make classes of, so that no function is too long."""
    found = set()
    for text in texts:
        inner = [r for r in program.inlined[text.block] if len(r.calls) > 2]
        if text.longest > LONGEST and inner:
            small = [r for r in inner if len(r.calls) <= _WIDE]
            found.add(max(small, key=lambda r: len(r.calls)).path if small else inner[-1].path)
    return found


# ---- the file


def _assembled(draft: Draft, linked: bool, strided: bool) -> Emitted:
    file, texts = draft.file, draft.texts
    stage, *blocks = texts
    body = Source()
    placed: dict[Call, int] = {}
    for word, helper in {"Numbered": NUMBERED, FROZEN: FROZEN_BATCH_NORM}.items():
        if any(word in str(t.source) for t in texts):
            body.lines(f"\n\n{helper}")
    if file.whole.modules:
        body.lines(f"\n\n{SUPPORT}\n\n" + "\n".join(file.whole.shared()))
    for text in (*reversed(blocks), stage):
        body.lines("\n")
        placed |= {call: line + body.count for call, line in text.placed.items()}
        body.lines(str(text.source))
    src = Source()
    emit_head(file, src, linked, str(body))
    emit_tables(file, src)
    placed = {call: line + src.count for call, line in placed.items()}
    src.lines(str(body))
    src.line()
    emit_reader(src, linked, strided)
    source = formatted(str(src))
    moved = _moved(str(src), source)
    lines = {c: placed[c] for c in placed}
    for same, call in _same_as(draft.program):
        if call in lines:
            lines[same] = lines[call]
    return Emitted(source, {call: moved[line] for call, line in lines.items() if line in moved})


def _moved(before: str, after: str) -> dict[int, int]:
    """Where the formatter put each statement, by its first line."""
    statements = [[s.lineno for s in ast.walk(ast.parse(t)) if isinstance(s, ast.stmt)] for t in (before, after)]
    return dict(zip(*statements, strict=True))


def _same_as(program: Program) -> Iterator[tuple[Call, Call]]:
    """Calls that one line stands for, each with one that is known by then; outer functions come last."""
    bodies = [*(b.body for b in program.blocks), program.body]
    for body in bodies:
        for statement in walk(body):
            if isinstance(statement, Loop):
                for turn in statement.turns:
                    for a, b in zip(turn, statement.body, strict=True):
                        if isinstance(a, Call) and isinstance(b, Call):
                            yield a, b
            if isinstance(statement, Loop):
                for turn in statement.turns:
                    yield from _sameuses(turn)
        yield from _sameuses(body)


def _sameuses(body: Sequence[Statement]) -> Iterator[tuple[Call, Call]]:
    for use in body:
        if isinstance(use, Use):
            yield from zip(use.calls, use.block.calls, strict=True)
