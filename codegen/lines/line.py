"""Lines of a stage file as data: statements with their expressions, comments, `del` and loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from codegen.spelling.expressions import (
    Expression,
    FunctionsCall,
    Invocation,
    OpaqueCall,
    Operation,
    Verbatim,
    in_one_subscript,
    source,
    subexpressions,
)
from ir.graph import Call
from ir.location import Frame
from ir.operators.facts import aten

LINE_LENGTH = 120
INDENT = 4


@dataclass(frozen=True)
class Bind:
    """`a, b = value`; without targets the value alone.  A single target of what `unpacks` has a comma."""

    targets: tuple[str, ...]
    values: tuple[Expression, ...]
    unpacks: bool = False
    origin: Frame | None = None  # the user's statement that it comes from

    @cached_property
    def source(self) -> str:
        comma = "," if self.unpacks and len(self.targets) == 1 else ""
        left = f"{', '.join(self.targets)}{comma} = " if self.targets else ""
        return left + ", ".join(map(source, self.values))


@dataclass(frozen=True)
class Store:
    """`self.fc = value`, with the annotation Any where that keeps type checkers quiet."""

    target: Expression
    value: Expression
    untyped: bool = False

    @cached_property
    def source(self) -> str:
        return f"{source(self.target)}{': Any' if self.untyped else ''} = {source(self.value)}"


@dataclass(frozen=True)
class Put:
    """`x[:, 1:] = value`, `x[:, 1:] += value` for a sum with what is there, or `x.diagonal().copy_(value)`."""

    target: Expression
    value: Expression
    calls: tuple[Call, ...]  # of the graph, that it stands for
    origin: Frame | None = None
    may_sum: bool = False  # whether the sum reads the tensor nowhere else

    @cached_property
    def source(self) -> str:
        target, value = source(self.target), source(self.value)
        if isinstance(self.target, Operation) and not target.endswith("]"):
            return f"{target}.{'fill_' if isinstance(self.value, Verbatim) else 'copy_'}({value})"
        if self.may_sum and isinstance(self.value, Operation) and (symbol := AUGMENTED.get(self.value.call.op)):
            call, operands = self.value.call, self.value.operands
            left = next((source(operands[v]) for v in call.args[:1] if v in operands), "")
            keeps_type = call.operands[0].type.dtype is call.results[0].type.dtype
            if left == target and keeps_type and value.startswith(f"{target} {symbol} "):
                return f"{target} {symbol}= {value[len(f'{target} {symbol} ') :]}"
        return f"{target} = {value}"


AUGMENTED = {aten.add.Tensor: "+", aten.sub.Tensor: "-", aten.mul.Tensor: "*", aten.div.Tensor: "/"}


@dataclass(frozen=True)
class Return:
    """`return a, b`."""

    values: tuple[Expression, ...]
    origin: Frame | None = None

    @cached_property
    def source(self) -> str:
        return f"return {', '.join(map(source, self.values))}"


@dataclass(frozen=True)
class Delete:
    """`del a, b`."""

    names: tuple[str, ...]

    @cached_property
    def source(self) -> str:
        return f"del {', '.join(self.names)}"


@dataclass(frozen=True)
class Comment:
    """`# text`."""

    text: str

    @cached_property
    def source(self) -> str:
        return f"# {self.text}"


@dataclass(frozen=True)
class For:
    """`for a, b in over:` and the lines of a turn."""

    targets: tuple[str, ...]
    over: Expression
    body: tuple[Line, ...]

    @cached_property
    def source(self) -> str:
        return f"for {', '.join(self.targets)} in {source(self.over)}:"


@dataclass(frozen=True)
class Def:
    """`def true_fn(x):` inside a function, and its lines."""

    name: str
    parameters: tuple[str, ...]
    body: tuple[Line, ...]

    @cached_property
    def source(self) -> str:
        return f"def {self.name}({', '.join(self.parameters)}):"


Line: TypeAlias = Bind | Store | Put | Return | Delete | Comment | For | Def


def walk_lines(lines: Sequence[Line]) -> Iterator[Line]:
    """All lines, with those inside loops."""
    for line in lines:
        yield line
        if isinstance(line, For):
            yield from walk_lines(line.body)


def expressions(line: Line) -> Iterator[Expression]:
    """The expressions in a line, each after those inside it; not those of a body."""
    match line:
        case Bind(values=values) | Return(values):
            outermost = values
        case Store(target, value) | Put(target, value):
            outermost = (target, value)
        case For(over=over):
            outermost = (over,)
        case Delete() | Comment() | Def():
            outermost = ()
    for expression in outermost:
        yield from subexpressions(expression)


def calls_in(line: Line) -> Iterator[tuple[Call, Expression]]:
    """The calls of the graph that a line makes, each with its expression."""
    if isinstance(line, Put):
        yield from ((call, line.target) for call in line.calls)
    found = list(expressions(line))
    outer = {id(part): whole for whole in found if isinstance(whole, Operation) for part in in_one_subscript(whole)}
    for expression in found:
        match expression:
            case Operation(call) | OpaqueCall(call) | FunctionsCall(call) | Invocation(runs=Call() as call):
                yield call, outer.get(id(expression), expression)


def height(lines: Sequence[Line], depth: int) -> int:
    """About how many lines the formatter makes of some that are `depth` blocks deep."""
    inner = sum(height(line.body, depth + 1) for line in lines if isinstance(line, (For, Def)))
    return inner + sum(height_of(line.source, depth) for line in lines)


def height_of(text: str, depth: int) -> int:
    """About how many lines the formatter makes of one."""
    return 1 + (INDENT * depth + len(text)) // LINE_LENGTH * 3
