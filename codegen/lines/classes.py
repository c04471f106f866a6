"""Plans the classes of a stage file: the stage itself and the modules that repeat in it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property

from codegen.lines.class_plan import ClassPlan, FunctionPlan, KernelPlan
from codegen.lines.forward import forward_lines, kernel_lines
from codegen.lines.init import NUMBERED, base_class, helpers, init_lines
from codegen.lines.line import Line, Store
from codegen.lines.modules import Constructor, Contents
from codegen.lines.scopes.file_scope import FileScope
from codegen.lines.scopes.local_names import Names
from codegen.lines.scopes.scope import SELF, Scope
from codegen.lines.stage_file import StageFile
from codegen.spelling.expressions import Expression, subject
from codegen.spelling.paths import Paths
from codegen.spelling.torch_modules import FROZEN, TorchModule
from codegen.structure.kernels import kernels_in
from codegen.structure.program import Block, Kernel, Loop, Statement, Use, inside, join, relative, walk
from codegen.structure.reroll import Rerolled
from ir.analysis.borders import word
from ir.graph import Param, State, Value
from ir.location import Frame

PAGED, QUANTIZED = "paged_attention", "quantized_linear"  # functions, each in a module of its name beside stage files
FUSED = "fused_kernel"  # a decorator in such a module
DEQUANTIZING = "dequantize"  # a function that a stage file has itself
_OWN = (PAGED, QUANTIZED, FUSED, DEQUANTIZING, NUMBERED, FROZEN)
_TAKEN = (*_OWN, "read_weights", "read_piece", "rebuilt", "tensors", "RECEIVES", "SENDS", "nn", "Any")


@dataclass(frozen=True)
class KnownForwards:
    """The forwards of blocks as they were planned for other choices of a file's classes."""

    found: dict[Hashable, list[tuple[AbstractSet[str], AbstractSet[str], FunctionPlan]]] = field(default_factory=dict)

    def get(self, key: Hashable, reserved: AbstractSet[str]) -> FunctionPlan | None:
        """A forward that would be planned alike, as the names that it asked for are reserved or not as they were."""
        known = self.found.get(key, ())
        return next((plan for asked, taken, plan in known if asked & reserved == taken), None)

    def add(self, key: Hashable, reserved: AbstractSet[str], asked: AbstractSet[str], plan: FunctionPlan) -> None:
        self.found.setdefault(key, []).append((asked, asked & reserved, plan))


def plan_classes(file: StageFile, program: Rerolled, known: KnownForwards | None = None) -> tuple[ClassPlan, ...]:
    """The stage first, each class before those that it uses: callers know what to call arguments.

    Forwards are taken from those that are `known`, and noted there.
    """
    planner = _ClassPlanner(file, program, known or KnownForwards())
    classes = [planner.stage()]
    given = dict[Block, tuple[Expression, ...]]()
    for block in reversed(program.blocks):
        for use, arguments in classes[-1].forward.uses():
            given.setdefault(use.block, arguments)
        classes.append(planner.block(block, given[block]))
    return tuple(classes)


def plan_kernels(file: StageFile, program: Rerolled) -> tuple[KernelPlan, ...]:
    """The functions of the kernels that a file launches."""
    planner = _ClassPlanner(file, program, KnownForwards())
    return tuple(map(planner.kernel, planner.kernels))


@dataclass(frozen=True)
class _ClassPlanner:
    """Plans the classes of one file."""

    file: StageFile
    program: Rerolled
    known: KnownForwards

    @cached_property
    def names(self) -> Mapping[Block, str]:
        kernels = (kernel.name for kernel in self.kernels)
        return class_names(self.program.blocks, self.file.parts, [*_TAKEN, *kernels, self.file.cls])

    @cached_property
    def kernels(self) -> list[Kernel]:
        return kernels_in(self.program.bodies)

    @cached_property
    def scope(self) -> FileScope:
        file = self.file
        kernels = (kernel.name for kernel in self.kernels)
        reserved = frozenset({*self.names.values(), *kernels, *_TAKEN, file.cls, *map(str, file.symbols)})
        known = _paths(file, self.program)
        sliced = _sliced(self.program, known)
        paths = replace(known, keyed=_keyed(known, file.torch_modules))
        hints = file.stage.graph.hints
        return FileScope(file.fqns, reserved, file.torch_modules, file.opaque, paths, sliced, hints)

    @cached_property
    def repeated(self) -> AbstractSet[Block]:
        """The classes that a loop calls."""
        loops = (s for body in self.program.bodies for s in body if isinstance(s, Loop))
        return {use.block for loop in loops for use in loop.body if isinstance(use, Use)}

    def stage(self) -> ClassPlan:
        file, graph = self.file, self.file.stage.graph
        scope = self._scope("")
        for value in graph.inputs:
            scope.names.hold(value.name, value)
        body = forward_lines(scope, graph.inputs, self.program.body, graph.outputs, as_tuple=True)
        sizes = [f"{s}: int" for s in file.sizes]
        parameters = (*(v.name for v in graph.inputs), *(["*", *sizes] if sizes else []))
        root = self._contents("", self.program.body, file.fqns.values()).tree()
        defaults = tuple(f"{name}={size}" for name, size in file.rows.items())
        init = FunctionPlan("__init__", defaults, (*init_lines(root), *self._ties()))
        forward = FunctionPlan("forward", parameters, body)
        return ClassPlan(None, file.cls, base_class(root), "", init, forward, helpers(root))

    def _ties(self) -> Iterator[Line]:
        """Tensors of modules that are kept whole which are stored under another name as well."""
        for inner, name in self.file.opaque.ties(self.file.fqns).items():
            yield Store(self.scope.paths.reach(SELF, "", inner), self.scope.paths.reach(SELF, "", name))

    def block(self, block: Block, given: Sequence[Expression]) -> ClassPlan:
        root = self._contents(block.path, block.body, (join(block.path, name) for name in block.stored)).tree()
        init = FunctionPlan("__init__", self._rows(block), tuple(init_lines(root))) if root.parts else None
        key = block, tuple(map(subject, given)), block in self.repeated, self._lists(block.path)
        forward = self.known.get(key, self.scope.reserved)
        if forward is None:
            scope = self._scope(block.path)
            forward = self._forward(block, given, scope)
            self.known.add(key, self.scope.reserved, scope.names.asked, forward)
        name, base = self.names[block], base_class(root)
        return ClassPlan(block, name, base, _origin(block, self._outermost(block)), init, forward, helpers(root))

    def _forward(self, block: Block, given: Sequence[Expression], scope: Scope) -> FunctionPlan:
        parameters = [
            *_parameters(block, self.file.parts.get(block.path, ""), given, scope.names),
            *map(str, self.scope.missing(block)),
        ]
        body = forward_lines(scope, block.inputs, block.body, block.outputs, borrowed=frozenset(block.inputs))
        # torch.compile compiles it once for all layers
        decorator = "@torch.compiler.nested_compile_region()" if block in self.repeated else ""
        return FunctionPlan("forward", tuple(parameters), body, decorator)

    def kernel(self, kernel: Kernel) -> KernelPlan:
        """The function of a kernel, whose operators are written as such, be they those of modules of torch's own."""
        scope = replace(self._scope(kernel.path), file=replace(self.scope, torch_modules={}))
        names = [scope.names.give(v, self._parameter_names(v, kernel), set(kernel.inputs)) for v in kernel.inputs]
        return KernelPlan(kernel.name, tuple(names), kernel_lines(scope, kernel))

    def _parameter_names(self, value: Value, kernel: Kernel) -> Iterator[str]:
        """Names for a parameter: of the module's tensor, of the first that the module is given, of the variable."""
        if isinstance(value, Param):
            yield value.fqns[0].rpartition(".")[2]
        frame, maker = (kernel.calls[-1].where.frames or (Frame(""),))[-1], self.file.stage.graph.producer.get(value)
        module = maker.where.module if maker else ""
        if value is kernel.inputs[0] and not f"{module}.".startswith(f"{frame.module}."):
            yield from frame.parameters[:1]
        yield from (name for name in reversed(value.variables) if name)
        yield word(module) if module else value.name.rstrip("_0123456789")

    def _lists(self, path: str) -> Hashable:
        """The lists in the module `path`, and how they are written."""
        paths, sliced = self.scope.paths, self.scope.sliced
        here = (p for p in (*paths.numbers, *paths.keyed, *sliced) if p == path or inside(path, p))
        return frozenset((p, paths.numbers.get(p), p in paths.keyed, p in sliced) for p in here)

    def _outermost(self, block: Block) -> str:
        """The first of the places where a class is used that lie in the fewest modules."""
        places = (use.path for body in self.program.bodies for use in uses(body) if use.block == block)
        return min((block.path, *places), key=lambda path: path.count("."))

    def _scope(self, path: str) -> Scope:
        return Scope(self.scope, path, Names(self.scope.reserved))

    # ---- what a class holds

    def _contents(self, path: str, body: Sequence[Statement], names: Iterable[str]) -> Contents:
        """The contents of the class of the module `path`, which stores the tensors `names`."""
        held = frozenset(names)
        opaque = self.file.opaque
        stored = {relative(f, path): v for v, f in self.file.fqns.items() if f in held}
        used = {use.path for use in uses(body)}
        kept = (p for p in opaque.modules if inside(path, p) and not any(inside(q, p) for q in used))
        rebuilt = {relative(p, path): opaque.built(opaque.modules[p]) for p in kept}
        made = self._constructors(path, body, held)

        def own(lists: Iterable[str]) -> list[str]:
            here = (relative(p, path) for p in lists if p == path or inside(path, p))
            return [p for p in here if not any(inside(q, p) or p == q for q in made)]

        return Contents(stored, made, rebuilt, own(self.scope.sliced), own(self.scope.paths.keyed))

    def _constructors(self, path: str, body: Sequence[Statement], held: AbstractSet[str]) -> dict[str, Constructor]:
        """The modules in a class that one expression makes, by their path in it."""
        kept = self.file.opaque.modules
        used = {use.path: Constructor(self._made(use.block), use.block.stored) for use in uses(body)}
        declared = {join(p, name) for p, made in used.items() for name in made.names}
        torchs = {p: Constructor(m.source, frozenset(m.stored)) for p, m in self.scope.torch_modules.items()}
        own = {
            p: made
            for p, made in torchs.items()
            if not any(inside(q, p) for q in kept)
            and held >= (all_ := {join(p, n) for n in made.names})
            and declared.isdisjoint(all_)
        }
        return {relative(p, path): made for p, made in {**own, **used}.items() if inside(path, p)}

    def _made(self, block: Block) -> str:
        return f"{self.names[block]}({', '.join(self._rows(block))})"

    def _rows(self, block: Block) -> tuple[str, ...]:
        """The sizes that the constructor of a class takes: those of the pools in it."""
        held = {join(block.path, name) for name in block.stored}
        pools = {v.rows for v, name in self.file.fqns.items() if isinstance(v, State) and name in held}
        return tuple(name for name in self.file.rows if name in pools)


def _parameters(block: Block, part: str, given: Sequence[Expression], names: Names) -> Iterator[str]:
    """Parameters are called as in the user's `forward`, or else as the first caller calls what it gives.

    The first one is that of the user's where the class begins as the module does, be it all of it or the start.
    """
    frame = next((f for f in block.calls[0].where.frames if f.module == block.path and f.parameters), None)
    parameters = frame.parameters if frame else ()
    for i, (value, argument) in enumerate(zip(block.inputs, given, strict=True)):
        name = subject(argument)
        known = [n for n in (name, re.sub(r"_\d+$", "", name)) if n in parameters]
        first = [p for p in parameters[:1] if i == 0 and part in ("", "Start")]
        yield names.give(value, [*known, *first, name], set(block.inputs))


def class_names(blocks: Sequence[Block], parts: Mapping[str, str], taken: Iterable[str]) -> dict[Block, str]:
    """A name for each class: that of the user's class, with the part of it, numbered where several differ."""
    names: dict[Block, str] = {}
    used = set(taken)
    for block in blocks:
        name = stem = block.cls + parts.get(block.path, "")
        count = 1
        while name in used:
            count += 1
            name = f"{stem}{count}"
        used.add(name)
        names[block] = name
    return names


def _origin(block: Block, path: str) -> str:
    """The module that a class is shown to come from, at `path`, and the first line of it that does something."""
    frame = next((f for f in block.calls[0].where.frames if f.module == block.path and f.file), None)
    return f"{path} ({frame.file}:{frame.line})" if frame else path


def uses(body: Sequence[Statement]) -> Iterator[Use]:
    """The calls of classes in a body, each turn of its loops."""
    for statement in body:
        match statement:
            case Use():
                yield statement
            case Loop():
                for turn in statement.turns:
                    yield from uses(turn)


def _paths(file: StageFile, program: Rerolled) -> Paths:
    called = {use.path for body in program.bodies for use in uses(body)} | set(file.opaque.modules)
    return Paths(frozenset(file.fqns.values()), frozenset(called))


def _keyed(known: Paths, torchs: Mapping[str, TorchModule]) -> frozenset[str]:
    """The lists of the file's own that do not begin at 0, or have gaps; one with a class of its own is `Numbered`."""
    gaps = (path for path, numbers in known.numbers.items() if numbers != tuple(range(len(numbers))))
    own = (path for path in gaps if path and path not in known.called)
    return frozenset(path for path in own if not any(path == q or inside(q, path) for q in torchs))


def _sliced(program: Rerolled, known: Paths) -> tuple[str, ...]:
    """The lists of which a loop goes over a part."""
    steps = (step for body in program.bodies for s in walk(body) if isinstance(s, Loop) for step in s.steps)
    parts = (s.container for s in steps if s.numbers != known.numbers.get(s.container, s.numbers))
    return tuple(dict.fromkeys(parts))
