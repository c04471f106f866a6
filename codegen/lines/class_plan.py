"""Classes and functions of a stage file as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from codegen.lines.line import LINE_LENGTH, Line, expressions, height, height_of, walk_lines
from codegen.spelling.expressions import Expression, Invocation
from codegen.structure.program import Block, Use


@dataclass(frozen=True)
class FunctionPlan:
    """A method: its parameters behind `self` and its lines."""

    name: str
    parameters: tuple[str, ...]
    body: tuple[Line, ...]
    decorator: str = ""

    @property
    def head(self) -> str:
        return f"def {self.name}({', '.join(('self', *self.parameters))}):"

    @cached_property
    def height(self) -> int:
        return height_of(self.head, 1) + height(self.body, 2)

    def uses(self) -> Iterator[tuple[Use, tuple[Expression, ...]]]:
        """The calls of classes, with their arguments."""
        for line in walk_lines(self.body):
            for expression in expressions(line):
                match expression:
                    case Invocation(arguments=arguments, runs=Use() as use):
                        yield use, arguments


@dataclass(frozen=True)
class KernelPlan:
    """A function of the file that runs as one kernel."""

    name: str
    parameters: tuple[str, ...]
    body: tuple[Line, ...]

    @property
    def head(self) -> str:
        return f"def {self.name}({', '.join(self.parameters)}):"

    @cached_property
    def height(self) -> int:
        """About how many lines the function has, with its decorator."""
        return 1 + height_of(self.head, 0) + height(self.body, 1)


@dataclass(frozen=True)
class ClassPlan:
    """A class: the stage itself, or a module that repeats in it."""

    block: Block | None  # None: the stage itself
    name: str
    base: str
    origin: str  # where the user's class stands; "" for the stage
    init: FunctionPlan | None
    forward: FunctionPlan
    helpers: frozenset[str]  # classes of the file's own that it needs

    @property
    def head(self) -> str:
        return f"class {self.name}({self.base}):"

    @property
    def origin_above(self) -> bool:
        """Whether the comment with the origin stands above the class, as it is too long for a place beside it."""
        return len(f"{self.head}  # {self.origin}") > LINE_LENGTH

    @property
    def functions(self) -> tuple[FunctionPlan, ...]:
        return (self.forward,) if self.init is None else (self.init, self.forward)

    @cached_property
    def height(self) -> int:
        """About how many lines the class has."""
        decorators = sum(bool(f.decorator) for f in self.functions)
        blank = len(self.functions) - 1
        return 1 + self.origin_above + sum(f.height for f in self.functions) + decorators + blank

    @cached_property
    def longest(self) -> int:
        """About how many lines the longest function has, the head of the class with `__init__`."""
        return max(self.forward.height, self.height - self.forward.height)
