"""Expressions of a stage file: a tree of operators, calls and names, and its spelling as Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import TypeAlias

import sympy

from codegen.spelling.higher_order import higher_order_source
from codegen.spelling.literals import argument_source
from codegen.spelling.opaque_modules import OpaqueModules
from codegen.spelling.operators import spelled
from codegen.spelling.subscripts import adds_one_dimension, is_subscript, subscript
from codegen.spelling.writers import ATOM, Text
from codegen.structure.program import Use
from ir.graph import Call, Value
from ir.operators.higher_order import Body, HigherOrder


@dataclass(frozen=True)
class Variable:
    """A local variable, or another plain name."""

    name: str


@dataclass(frozen=True)
class Attribute:
    """`x.shape`, and `getattr(self, "0")` for what is no identifier."""

    owner: Expression
    name: str


@dataclass(frozen=True)
class Subscript:
    """`layers[3]`, `layers[0:8]`, `self._modules["load"]`."""

    owner: Expression
    index: int | slice | str


@dataclass(frozen=True)
class Tuple:
    """`(a, b)`."""

    items: tuple[Expression, ...]


@dataclass(frozen=True)
class EmptyList:
    """`[]`."""


@dataclass(frozen=True)
class Verbatim:
    """An expression that is spelled already, such as the constructor of a module."""

    text: str


@dataclass(frozen=True)
class Invocation:
    """`callee(a, b, option=c)`; `runs` is what it stands for, where that is part of the program."""

    callee: Expression
    arguments: tuple[Expression, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    runs: Call | Use | None = None


@dataclass(frozen=True)
class Operation:
    """A call of an operator, with an expression for each value that it reads, and the names of long sizes."""

    call: Call
    operands: Mapping[Value, Expression]
    sizes: Mapping[sympy.Basic, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpaqueCall:
    """A call of a module that is kept whole, with an expression for each value that it reads."""

    call: Call
    module: Expression
    operands: Mapping[Value, Expression]
    modules: OpaqueModules


@dataclass(frozen=True)
class FunctionsCall:
    """A call of a higher-order operator, with names of its functions, and an expression for each operand."""

    call: Call
    what: HigherOrder
    names: Mapping[Body, str]
    operands: tuple[Expression, ...]


Expression: TypeAlias = (
    Variable
    | Attribute
    | Subscript
    | Tuple
    | EmptyList
    | Verbatim
    | Invocation
    | Operation
    | OpaqueCall
    | FunctionsCall
)


def spell(expression: Expression) -> Text:
    """An expression as Python."""
    match expression:
        case Variable(text) | Verbatim(text):
            return Text(text)
        case Attribute(of, name):
            return Text(f"{spell(of).within(ATOM)}.{name}" if is_plain(name) else f'getattr({source(of)}, "{name}")')
        case Subscript(of, index):
            return Text(f"{source(of)}[{_index(index)}]")
        case Tuple(items):
            return Text(f"({', '.join(map(source, items))}{',' if len(items) == 1 else ''})")
        case EmptyList():
            return Text("[]")
        case Invocation(callee, arguments, options):
            given = [*map(source, arguments), *(f"{name}={value}" for name, value in options)]
            return Text(f"{source(callee)}({', '.join(given)})")
        case Operation(call, operands, sizes):
            if len(chain := in_one_subscript(expression)) > 1:
                return _subscripted(chain)
            return spelled(call, lambda value: spell(operands[value]), sizes)
        case OpaqueCall(call, module, operands, modules):
            return Text(modules.call_source(call, source(module), lambda value: source(operands[value])))
        case FunctionsCall(_, what, names, operands):
            return Text(higher_order_source(what, names, list(map(source, operands))))


def in_one_subscript(outer: Operation) -> list[Operation]:
    """The operations that are one subscript, the outermost last: a chain of slices, picks and new dimensions.

    It has one operation where there is no such chain.
    """
    chain, inner = [outer], outer
    while is_subscript(inner.call):
        within = inner.operands[inner.call.operands[0]]
        if not isinstance(within, Operation) or not is_subscript(within.call):
            break
        calls = [within.call, *(part.call for part in chain)]
        if subscript(calls, str) is None or adds_one_dimension(calls):
            break
        chain, inner = [within, *chain], within
    return chain


def _subscripted(chain: Sequence[Operation]) -> Text:
    inner = chain[0].operands[chain[0].call.operands[0]]
    found = subscript([part.call for part in chain], lambda a: argument_source(a, str, chain[0].sizes))
    return Text(f"{spell(inner).within(ATOM)}[{found}]")


def number(value: int | float | bool | complex) -> Expression:
    """A number as an expression."""
    return Verbatim(argument_source(value, str))


def source(expression: Expression) -> str:
    """An expression as Python, where nothing around it binds tighter."""
    return spell(expression).source


def is_plain(name: str) -> bool:
    """Whether a name can stand behind a dot."""
    return name.isidentifier() and not iskeyword(name)


def _index(index: int | slice | str) -> str:
    match index:
        case slice(start=start, stop=stop, step=step):
            ends = f"{'' if start is None else start}:{'' if stop is None else stop}"
            return ends if step is None else f"{ends}:{step}"
        case str():
            return f'"{index}"'
    return str(index)


def subject(expression: Expression) -> str:
    """The variable or tensor that an expression begins with; "" for none."""
    match expression:
        case Variable(name):
            return name
        case Attribute(of, name):
            return name if is_plain(name) else subject(of)
        case Subscript(of):
            return subject(of)
        case Invocation(_, (first, *_)):
            return subject(first)
        case Operation(call, operands) if call.operands:
            return subject(operands[call.operands[0]])
    return ""


def subexpressions(expression: Expression) -> Iterator[Expression]:
    """An expression and all in it, the innermost first."""
    for part in _parts(expression):
        yield from subexpressions(part)
    yield expression


def _parts(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Attribute(of) | Subscript(of):
            return (of,)
        case Tuple(items):
            return items
        case Invocation(callee, arguments):
            return (callee, *arguments)
        case Operation(call, operands):
            return tuple(operands[value] for value in call.operands)
        case OpaqueCall(call, module, operands):
            return (module, *(operands[value] for value in call.operands))
        case FunctionsCall(operands=operands):
            return operands
    return ()
