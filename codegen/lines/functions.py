"""Functions inside a `forward`: those that a higher-order operator such as `cond` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, TypeAlias

import sympy

from codegen.lines.line import Def, Line, Return
from codegen.lines.local_names import Names
from codegen.lines.scope import Functions, Scope
from codegen.spelling.expressions import Expression, Tuple, Verbatim, subject
from codegen.spelling.literals import argument_source
from ir.graph import Call, Value
from ir.higher_order import Body, higher_order_of
from ir.location import Frame, Where

Plan: TypeAlias = Callable[[Sequence[Call], Scope, Sequence[Value]], tuple[Line, ...]]


def function_lines(call: Call, live: AbstractSet[Value], scope: Scope, plan: Plan) -> Iterator[Def]:
    """The functions that a node runs, which `scope` then knows by name; `plan` plans the lines of a body."""
    what = higher_order_of(call)
    captured = dict(zip(what.captured, call.args[0][len(call.args[0]) - len(what.captured) :], strict=True))
    outside = {inner: scope.value(outer) for inner, outer in captured.items()}
    where = _one_line(call.where)
    names: dict[Body, str] = {}
    for body in what.bodies:
        names[body] = scope.names.fresh(body.name, live | set(call.operands))
        scope.names.reserved |= {names[body]}
        taken = scope.names.reserved | {subject(e) for e in outside.values()}
        inner = replace(scope, names=Names(taken), modules=dict(scope.modules), items={**scope.items, **outside})
        yield _function(body.map(lambda node: [replace(node, where=where)]), names[body], inner, plan)
    scope.functions[call] = Functions(what, names)


def _function(body: Body, name: str, scope: Scope, plan: Plan) -> Def:
    inputs = {v for v in body.inputs if isinstance(v, Value)}
    parameters = tuple(_parameter(i, given, inputs, scope) for i, given in enumerate(body.inputs))
    kept = tuple(dict.fromkeys(out for out in body.outputs if isinstance(out, Value)))
    lines = plan(body.nodes, scope, kept)
    results = tuple(_result(out, scope) for out in body.outputs)
    return Def(name, parameters, (*lines, Return((Tuple(results),) if body.packed else results)))


def _one_line(where: Where) -> Where:
    """A place in the source for all nodes of a function, whose own lines torch does not tell."""
    *around, last = where.frames or (Frame(where.module),)
    return replace(where, frames=(*around, replace(last, line=last.line or 1)))


def _parameter(place: int, given: Value | sympy.Basic, inputs: set[Value], scope: Scope) -> str:
    """The name of a parameter; a counter has its own, a size is known already."""
    match given:
        case Value():
            return scope.names.give(given, [given.name], inputs)
        case sympy.Symbol() if str(given) not in scope.file.reserved:
            scope.names.reserved |= {str(given)}
            return str(given)
    return f"size_{place}"


def _result(out: Any, scope: Scope) -> Expression:
    return scope.value(out) if isinstance(out, Value) else Verbatim(argument_source(out, str))
