"""A Stage as one Python file that needs nothing but torch and safetensors."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from codegen import paths
from codegen.function import Function, Vocabulary
from codegen.head import emit_head, emit_tables
from codegen.leaves import FROZEN, FROZEN_BATCH_NORM, Leaf, leaf_module
from codegen.loading import emit_load, emit_reader
from codegen.modules import NUMBERED, Holder, class_names, declare_class
from codegen.naming import Names
from codegen.paths import Paths
from codegen.program import Block, Loop, Statement, Use, inside, walk
from codegen.reroll import Program, reroll
from codegen.source import LINE_LENGTH, Source, formatted
from codegen.stage_file import StageFile
from codegen.whole import SUPPORT
from ir.graph import Call, Node, Value

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

    Functions that are too long are split along the modules; where the file is, small classes that stand in one
    place are written out there.
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
        texts = _Writer(file, program).classes_text()
        more = _to_open(texts, program) - opened
        if not more:
            return Draft(file, program, texts, opened)
        opened |= more


def _single(program: Program) -> list[str]:
    """The modules whose class is used in one place of the file, the smallest first."""
    uses = Counter(
        u.block for body in (program.body, *(b.body for b in program.blocks)) for u in walk(body) if isinstance(u, Use)
    )
    return [b.path for b in sorted(program.blocks, key=lambda b: len(b.body)) if uses[b] == 1]


@dataclass(frozen=True)
class ClassText:
    """One class: its source, and the line in it of each call."""

    block: Block | None  # None: the stage itself
    source: Source
    placed: Mapping[Call, int]
    longest: int  # lines of its longest function


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


class _Writer:
    """Writes the classes of one file."""

    def __init__(self, file: StageFile, program: Program) -> None:
        self.file, self.program = file, program
        self.names = class_names(program.blocks, [*_TAKEN, file.cls])
        sizes = frozenset(map(str, file.symbols))
        reserved = frozenset({*self.names.values(), *_TAKEN, file.cls, *sizes})
        known = _paths(file, program)
        sliced = _sliced(program, known)
        self.words = Vocabulary(file.fqns, reserved, _leaves(file), known, sliced, file.stage.graph.hints)
        self.given: dict[Block, tuple[str, ...]] = {}
        self.repeated = _in_loops(program)

    def classes_text(self) -> list[ClassText]:
        """The stage first, each class before those that it uses: callers know what to call arguments."""
        return [self._stage(), *map(self._class, reversed(self.program.blocks))]

    def _stage(self) -> ClassText:
        file, src, placed = self.file, Source(), dict[Call, int]()
        graph = file.stage.graph
        holder = self._holder("", self.program.body)
        with src.block(f"class {file.cls}({holder.base}):"):
            with src.block("def __init__(self):"):
                declare_class(holder, src)
                for inner, name in file.whole.ties(file.fqns).items():
                    src.line(" = ".join(self.words.paths.reach("self", "", path) for path in (inner, name)))
            made = src.height(0)
            src.line()
            sizes = [f"{s}: int" for s in file.sizes]
            arguments = [*(v.name for v in graph.inputs), *(["*", *sizes] if sizes else [])]
            start = src.count
            with src.block(f"def forward({', '.join(['self', *arguments])}):"):
                function = self._function("", graph.inputs, self.program.body, src, placed)
                for value in graph.inputs:
                    function.names.hold(value.name, value)
                function.all(graph.inputs, self.program.body, graph.outputs, returns=False)
                outputs = ", ".join(function.write(v).source for v in graph.outputs)
                src.line(f"return ({outputs}{',' if len(graph.outputs) == 1 else ''})")
            length = max(made, src.height(start))
            src.line()
            emit_load(src)
        return ClassText(None, src, placed, length)

    def _class(self, block: Block) -> ClassText:
        src, placed = Source(), dict[Call, int]()
        holder = self._holder(block.path, block.body)
        head, origin = f"class {self.names[block]}({holder.base}):", f"# {_origin(block)}"
        if len(head) + len(origin) + 2 > LINE_LENGTH:
            src.line(origin)
        with src.block(head if src.count else f"{head}  {origin}"):
            if holder.parts:
                with src.block("def __init__(self):"):
                    declare_class(holder, src)
                src.line()
            function = self._function(block.path, block.inputs, block.body, src, placed)
            function.inputs = frozenset(block.inputs)
            arguments = self._arguments(block, function.names)
            sizes = [str(s) for s in self.words.missing(block)]
            if block in self.repeated:
                src.line("@torch.compiler.nested_compile_region()")  # torch.compile compiles it once for all layers
            start = src.count
            with src.block(f"def forward({', '.join(['self', *arguments, *sizes])}):"):
                if not function.all(block.inputs, block.body, block.outputs, returns=True):
                    src.line(f"return {', '.join(function.write(v).source for v in block.outputs)}")
        return ClassText(block, src, placed, max(src.height(start), src.height(0) - src.height(start)))

    def _function(
        self, path: str, inputs: Sequence[Value], body: Sequence[Statement], src: Source, placed: dict[Call, int]
    ) -> Function:
        large = self.words.large(inputs, body)
        names = Names(self.words.reserved)
        return Function(self.words, path, src, names, placed, self.given, self.file.whole, large=large)

    def _arguments(self, block: Block, names: Names) -> list[str]:
        """Parameters are called as in the user's `forward`, or else as the first caller calls what it gives."""
        frame = next((f for f in block.calls[0].where.frames if f.module == block.path and f.parameters), None)
        parameters = frame.parameters if frame else ()
        found: list[str] = []
        for i, (value, text) in enumerate(zip(block.inputs, self.given[block], strict=True)):
            words = re.findall(r"[A-Za-z_]\w*", text)
            known = [w for w in words[-1:] if w in parameters]
            first = [p for p in parameters[:1] if i == 0]
            found.append(names.give(value, [*known, *first, *words[-1:]], set(block.inputs)))
        return found

    # ---- what a class holds

    def _holder(self, path: str, body: Sequence[Statement]) -> Holder:
        """What the class of a module holds."""
        stored = ((paths.relative(f, path), v) for v, f in self.file.fqns.items() if inside(path, f))
        whole = self.file.whole
        bare = {paths.relative(p, path): whole.built(o) for p, o in whole.modules.items() if inside(path, p)}
        sliced = [paths.relative(p, path) for p in self.words.sliced if p == path or inside(path, p)]
        made = self._made(path, body)
        return Holder.of(stored, made, bare, [p for p in sliced if not any(inside(q, p) or p == q for q in made)])

    def _made(self, path: str, body: Sequence[Statement]) -> dict[str, str]:
        """The modules in a class that one expression makes, by their path in it."""
        kept = self.file.whole.modules
        found = {p: leaf.source for p, leaf in self.words.leaves.items() if not any(inside(q, p) for q in kept)}
        found |= {use.path: f"{self.names[use.block]}()" for use in _uses(body)}
        outer = [p for p in found if inside(path, p) and not any(inside(q, p) for q in _uses_paths(body) if q != p)]
        return {paths.relative(p, path): found[p] for p in outer}


def _origin(block: Block) -> str:
    frame = next((f for f in block.calls[0].where.frames if f.module == block.path and f.file), None)
    return f"{block.path} ({frame.file}:{frame.line})" if frame else f"{block.path}"


def _uses(body: Sequence[Statement]) -> Iterator[Use]:
    """The calls of classes in a body, each turn of its loops."""
    for statement in body:
        match statement:
            case Use():
                yield statement
            case Loop():
                for turn in statement.turns:
                    yield from _uses(turn)


def _uses_paths(body: Sequence[Statement]) -> set[str]:
    return {use.path for use in _uses(body)}


_TAKEN = ("Numbered", FROZEN, "read_weights", "read_piece", "rebuilt", "tensors", "RECEIVES", "SENDS", "nn", "Any")


def _leaves(file: StageFile) -> dict[str, Leaf]:
    """The modules of torch's own that the stage holds as they are."""
    by_module: dict[str, dict[str, Value]] = {}
    for value, fqn in file.fqns.items():
        owner, _, name = fqn.rpartition(".")
        by_module.setdefault(owner, {})[name] = value
    found: dict[str, Leaf] = {}
    for call in file.calls:
        path = call.where.module
        cls, stored = file.stage.graph.modules.get(path, ""), by_module.get(path, {})
        source = leaf_module(call, cls, stored) if path not in found else None
        alone = not any(inside(path, owner) for owner in by_module)
        if source and path and alone:
            found[path] = Leaf(cls, stored, source)
    return found


def _paths(file: StageFile, program: Program) -> Paths:
    bodies = (program.body, *(b.body for b in program.blocks))
    called = {path for body in bodies for path in _uses_paths(body)} | set(file.whole.modules)
    return Paths(frozenset(file.fqns.values()), frozenset(called))


def _in_loops(program: Program) -> set[Block]:
    """The classes that a loop calls."""
    bodies = (program.body, *(b.body for b in program.blocks))
    loops = (s for body in bodies for s in body if isinstance(s, Loop))
    return {use.block for loop in loops for use in loop.body if isinstance(use, Use)}


def _sliced(program: Program, known: Paths) -> frozenset[str]:
    """The lists of which a loop goes over a part."""
    bodies = (program.body, *(b.body for b in program.blocks))
    steps = (step for body in bodies for s in walk(body) if isinstance(s, Loop) for step in s.steps)
    return frozenset(s.container for s in steps if s.numbers != known.numbers.get(s.container, s.numbers))


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
                    yield from _same_uses(turn)
        yield from _same_uses(body)


def _same_uses(body: Sequence[Statement]) -> Iterator[tuple[Call, Call]]:
    for use in body:
        if isinstance(use, Use):
            yield from zip(use.calls, use.block.calls, strict=True)
