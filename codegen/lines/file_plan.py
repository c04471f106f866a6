"""The plan of a stage file: which modules are classes, so that functions and the file stay short."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from codegen.lines.class_plan import ClassPlan, KernelPlan
from codegen.lines.classes import DEQUANTIZING, KnownForwards, plan_classes, plan_kernels, uses
from codegen.lines.stage_file import StageFile
from codegen.structure.likeness import Likeness, without_digits
from codegen.structure.program import Launch, Loop, Statement, Use, walk
from codegen.structure.reroll import Repeats, Rerolled
from ir.checkpoint.quantized.scaled_operator import is_dequantized
from ir.graph import Call
from ir.operators.higher_order import with_inner

MOST_LINES = 54  # of a function, before the formatter breaks some of them; 60 after it
MOST_LINES_OF_FILE = 195  # if small classes alone make it longer
AROUND = 98  # about how many lines of a file are none of its classes'
_WIDE = 90  # calls of a region that is sure to be longer than MOST_LINES


@dataclass(frozen=True)
class FilePlan:
    """The classes of a stage file, the stage first."""

    file: StageFile
    program: Rerolled
    classes: tuple[ClassPlan, ...]
    kernels: tuple[KernelPlan, ...]
    opened: frozenset[str]  # the modules that are classes for the length of functions

    @cached_property
    def longest(self) -> int:
        return max(cls.longest for cls in self.classes)

    @cached_property
    def height(self) -> int:
        """About how many lines the file has."""
        return AROUND + sum(plan.height + 2 for plan in (*self.classes, *self.kernels))

    @property
    def helpers(self) -> frozenset[str]:
        """The helper classes and functions that the file needs."""
        inner = (call for outer in self.file.calls for call in with_inner(outer))
        own = [DEQUANTIZING] * any(map(is_dequantized, inner))
        return frozenset(own).union(*(cls.helpers for cls in self.classes))

    @property
    def same_lines(self) -> Mapping[Call, Call]:
        """Calls that one line stands for, each with the one that the line is planned for."""
        known: dict[Call, Call] = dict(pair for body in self.program.bodies for pair in _in_launches(body))
        for body in (*(b.body for b in self.program.blocks), self.program.body):  # inner functions first
            for call, stands_for in _stood_for(body):
                known[call] = known.get(stands_for, stands_for)
        return known


@dataclass(frozen=True)
class _Choice:
    """The modules that are classes for the length of functions, and those that are none for that of the file."""

    opened: frozenset[Hashable]  # by their paths without the numbers of layers
    closed: frozenset[Hashable]
    size: tuple[int, int]


@dataclass(frozen=True)
class KnownChoices:
    """The classes that were chosen for stages, which are the best for those that read alike, too."""

    found: dict[Hashable, _Choice] = field(default_factory=dict)


def plan_file(file: StageFile, chosen: KnownChoices | None = None) -> FilePlan:
    """The plan of a stage file, with the classes that were `chosen` for one like it.

    Functions that are too long are split along the modules; where the file is, small classes that one module
    alone has are written out where it is called.
    """
    repeats, known = Repeats.of(file.stage.graph, file.fqns), KnownForwards()
    if chosen is None or file.opaque.modules:
        return _chosen(file, repeats, known)[0]
    like = _likeness(file, repeats)
    if (choice := chosen.found.get(like.key)) is not None:
        opened, closed = (frozenset(like.paths[name] for name in names) for names in (choice.opened, choice.closed))
        plan, more = _with_classes(file, repeats, known, opened, closed)
        if not more and _size(plan) == choice.size:
            return plan
    plan, closed = _chosen(file, repeats, known)
    names = {full: name for name, full in like.paths.items()}
    opened, closed = (frozenset(names[path] for path in paths) for paths in (plan.opened, closed))
    chosen.found[like.key] = _Choice(opened, closed, _size(plan))
    return plan


def _likeness(file: StageFile, repeats: Repeats) -> Likeness:
    graph = file.stage.graph
    others = (without_digits(file.cls), file.program, tuple(file.rows.items()), file.symbols, file.sizes)
    return Likeness.of(repeats, file.parts, *others, tuple(graph.hints.items()))


def _size(plan: FilePlan) -> tuple[int, int]:
    return plan.height, plan.longest


def _chosen(file: StageFile, repeats: Repeats, known: KnownForwards) -> tuple[FilePlan, frozenset[str]]:
    """The plan whose functions and whose file are short, and the modules that are no classes for that."""
    plan = _with_short_functions(file, repeats, known, frozenset(), frozenset())
    closed: frozenset[str] = frozenset()
    for path in _single(plan.program):
        if plan.height <= MOST_LINES_OF_FILE:
            break
        other = _with_short_functions(file, repeats, known, plan.opened - {path}, closed | {path})
        if other.height < plan.height and other.longest <= max(MOST_LINES, plan.longest):
            plan, closed = other, closed | {path}
    return plan, closed


def _with_short_functions(
    file: StageFile, repeats: Repeats, known: KnownForwards, opened: frozenset[str], closed: frozenset[str]
) -> FilePlan:
    """A plan without `closed` as classes, where each function that is too long has been split, if it can be."""
    while True:
        plan, more = _with_classes(file, repeats, known, opened, closed)
        if not more:
            return plan
        opened |= more


def _with_classes(
    file: StageFile, repeats: Repeats, known: KnownForwards, opened: frozenset[str], closed: frozenset[str]
) -> tuple[FilePlan, frozenset[str]]:
    """A plan with `opened` as classes and without `closed`, and the modules to open for functions that are too long."""
    program = repeats.rolled(opened, closed - opened)
    classes = plan_classes(file, program, known)
    kernels = plan_kernels(file, program)
    return FilePlan(file, program, classes, kernels, opened), frozenset(_to_open(classes, program) - opened)


def _single(program: Rerolled) -> list[str]:
    """The modules whose class no other module has, the smallest first."""
    count = Counter(use.block for body in program.bodies for use in uses(body))
    return [b.path for b in sorted(program.blocks, key=lambda b: len(b.body)) if count[b] == 1]


def _to_open(classes: Sequence[ClassPlan], program: Rerolled) -> set[str]:
    """The modules to make classes of, so that no function is too long."""
    found = set()
    for cls in classes:
        inner = [r for r in program.inlined[cls.block] if len(r.calls) > 2]
        if cls.longest > MOST_LINES and inner:
            small = [r for r in inner if len(r.calls) <= _WIDE]
            found.add(max(small, key=lambda r: len(r.calls)).path if small else inner[-1].path)
    return found


def _stood_for(body: Sequence[Statement]) -> Iterator[tuple[Call, Call]]:
    """Calls of the turns of loops and of modules, each with that of the first turn or of the class."""
    for loop in (s for s in walk(body) if isinstance(s, Loop)):
        for turn in loop.turns:
            pairs = zip(turn, loop.body, strict=True)
            yield from ((a, b) for a, b in pairs if isinstance(a, Call) and isinstance(b, Call))
            yield from _in_uses(turn)
            yield from _in_launches(turn)
    yield from _in_uses(body)


def _in_launches(body: Sequence[Statement]) -> Iterator[tuple[Call, Call]]:
    """Calls of launches, each with that of the kernel's function."""
    for launch in walk(body):
        if isinstance(launch, Launch):
            pairs = zip(launch.calls, launch.kernel.calls, strict=True)
            yield from ((call, shown) for call, shown in pairs if call is not shown)


def _in_uses(body: Sequence[Statement]) -> Iterator[tuple[Call, Call]]:
    for use in body:
        if isinstance(use, Use):
            yield from zip(use.calls, use.block.calls, strict=True)
