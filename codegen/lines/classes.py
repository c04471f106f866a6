"""The classes of a stage file as source: the stage itself and the modules that repeat in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from codegen.lines.file_scope import Vocabulary
from codegen.lines.forward import Function
from codegen.lines.init import Holder, Made, class_names, declare_class
from codegen.lines.local_names import Names
from codegen.lines.scope import Expressions
from codegen.lines.stage_file import StageFile
from codegen.spelling import paths
from codegen.spelling.paths import Paths
from codegen.spelling.torch_modules import FROZEN, Leaf, leaf_module
from codegen.structure.program import Block, Loop, Statement, Use, inside, join, walk
from codegen.structure.reroll import Program
from codegen.text.source import LINE_LENGTH, Source
from codegen.text.weight_reader import emit_load
from ir.graph import Call, Value


@dataclass(frozen=True)
class ClassText:
    """One class: its source, and the line in it of each call."""

    block: Block | None  # None: the stage itself
    source: Source
    placed: Mapping[Call, int]
    longest: int  # lines of its longest function


class Writer:
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
        holder = self._holder("", self.program.body, file.fqns.values())
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
                outputs = ", ".join(function.texts.write(v).source for v in graph.outputs)
                src.line(f"return ({outputs}{',' if len(graph.outputs) == 1 else ''})")
            length = max(made, src.height(start))
            src.line()
            emit_load(src)
        return ClassText(None, src, placed, length)

    def _class(self, block: Block) -> ClassText:
        src, placed = Source(), dict[Call, int]()
        holder = self._holder(block.path, block.body, (join(block.path, name) for name in block.stored))
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
                    src.line(f"return {', '.join(function.texts.write(v).source for v in block.outputs)}")
        return ClassText(block, src, placed, max(src.height(start), src.height(0) - src.height(start)))

    def _function(
        self, path: str, inputs: Sequence[Value], body: Sequence[Statement], src: Source, placed: dict[Call, int]
    ) -> Function:
        large = self.words.large(inputs, body)
        texts = Expressions(self.words, path, Names(self.words.reserved), self.given)
        return Function(texts, src, placed, self.file.whole, large=large)

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

    def _holder(self, path: str, body: Sequence[Statement], names: Iterable[str]) -> Holder:
        """What the class of a module holds, which stores tensors of these names."""
        held = frozenset(names)
        stored = [(paths.relative(f, path), v) for v, f in self.file.fqns.items() if f in held]
        whole = self.file.whole
        kept = (p for p in whole.modules if inside(path, p) and not any(inside(q, p) for q in _uses_paths(body)))
        bare = {paths.relative(p, path): whole.built(whole.modules[p]) for p in kept}
        sliced = [paths.relative(p, path) for p in self.words.sliced if p == path or inside(path, p)]
        made = self._made(path, body, held)
        return Holder.of(stored, made, bare, [p for p in sliced if not any(inside(q, p) or p == q for q in made)])

    def _made(self, path: str, body: Sequence[Statement], held: AbstractSet[str]) -> dict[str, Made]:
        """The modules in a class that one expression makes, by their path in it."""
        kept = self.file.whole.modules
        used = {use.path: Made(f"{self.names[use.block]}()", use.block.stored) for use in uses(body)}
        declared = {join(p, name) for p, made in used.items() for name in made.names}
        leaves = {p: Made(leaf.source, frozenset(leaf.stored)) for p, leaf in self.words.leaves.items()}
        own = {
            p: made
            for p, made in leaves.items()
            if not any(inside(q, p) for q in kept)
            and held >= (all_ := {join(p, n) for n in made.names})
            and declared.isdisjoint(all_)
        }
        return {paths.relative(p, path): made for p, made in {**own, **used}.items() if inside(path, p)}


def _origin(block: Block) -> str:
    frame = next((f for f in block.calls[0].where.frames if f.module == block.path and f.file), None)
    return f"{block.path} ({frame.file}:{frame.line})" if frame else f"{block.path}"


def uses(body: Sequence[Statement]) -> Iterator[Use]:
    """The calls of classes in a body, each turn of its loops."""
    for statement in body:
        match statement:
            case Use():
                yield statement
            case Loop():
                for turn in statement.turns:
                    yield from uses(turn)


def _uses_paths(body: Sequence[Statement]) -> set[str]:
    return {use.path for use in uses(body)}


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
