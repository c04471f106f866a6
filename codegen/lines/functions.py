"""Functions inside a `forward`: those that a higher-order operator such as `cond` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, TypeAlias

import sympy
from torch.utils._pytree import tree_leaves

from codegen.lines.line import Def, Line, Return
from codegen.lines.scopes.local_names import Names
from codegen.lines.scopes.scope import Functions, Scope
from codegen.spelling.expressions import Expression, Tuple, Verbatim, subject
from codegen.spelling.literals import argument_source
from ir.graph import Call, Value
from ir.location import Frame, Where
from ir.objects.signature import Slot
from ir.operators.higher_order import Body, HigherOrder, higher_order_of

Plan: TypeAlias = Callable[[Sequence[Call], Scope, Sequence[Value]], tuple[Line, ...]]


def function_lines(call: Call, live: AbstractSet[Value], scope: Scope, plan: Plan) -> Iterator[Def]:
    """The functions that a node runs, which `scope` then knows by name; `plan` plans the lines of a body."""
    what = higher_order_of(call)
    captured = dict(zip(what.captured, call.args[0][len(call.args[0]) - len(what.captured) :], strict=True))
    outside = {inner: scope.value(outer) for inner, outer in captured.items()}
    where = _one_line(call.where)
    given = _given(call, what, scope)
    names: dict[Body, str] = {}
    for body in what.bodies:
        names[body] = scope.names.fresh(body.name, live | set(call.operands))
        scope.names.reserved |= {names[body]}
        taken = scope.names.reserved | {subject(e) for e in outside.values()}
        own = Names(taken, asked=scope.names.asked)
        inner = replace(scope, names=own, modules=dict(scope.modules), items={**scope.items, **outside})
        placed = body.map(lambda node: [replace(node, where=where)])
        yield _function(placed, names[body], given, inner, plan)
    scope.functions[call] = Functions(what, names)


def _given(call: Call, what: HigherOrder, scope: Scope) -> tuple[tuple[str, Value] | None, ...]:
    """The arguments that a node hands to its functions, each with its name around them; None for sizes and numbers."""
    around = tuple(a for a in what.arguments if isinstance(a, (list, tuple)))
    return tuple(_named(call.args[0][a.index], scope) if isinstance(a, Slot) else None for a in tree_leaves(around))


def _named(value: Value, scope: Scope) -> tuple[str, Value]:
    named = value in scope.names.read_as or value in scope.items or value in scope.file.fqns
    return (subject(scope.value(value)) if named else value.name), value


def _function(body: Body, name: str, given: Sequence[tuple[str, Value] | None], scope: Scope, plan: Plan) -> Def:
    inputs = {v for v in body.inputs if isinstance(v, Value)}
    names = given if len(given) == len(body.inputs) else [None] * len(body.inputs)
    pairs = zip(body.inputs, names, strict=True)
    parameters = tuple(_parameter(i, inner, wish, inputs, scope) for i, (inner, wish) in enumerate(pairs))
    kept = tuple(dict.fromkeys(out for out in body.outputs if isinstance(out, Value)))
    lines = plan(body.nodes, scope, kept)
    results = tuple(_result(out, scope) for out in body.outputs)
    return Def(name, parameters, (*lines, Return((Tuple(results),) if body.packed else results)))


def _one_line(where: Where) -> Where:
    """A place in the source for all nodes of a function, whose own lines torch does not tell."""
    *around, last = where.frames or (Frame(where.module),)
    return replace(where, frames=(*around, replace(last, line=last.line or 1)))


def _parameter(
    place: int, inner: Value | sympy.Basic, given: tuple[str, Value] | None, inputs: set[Value], scope: Scope
) -> str:
    """The name of a parameter: that of what is given, of whose rows a function gets one; a counter has its own.

    A size is known already.
    """
    match inner:
        case Value():
            name, value = given or (inner.name, inner)
            part = value.type.shape != inner.type.shape
            return scope.names.give(inner, [f"{name}_i" if part else name, inner.name], inputs)
        case sympy.Symbol() if str(inner) not in scope.file.reserved:
            scope.names.reserved |= {str(inner)}
            return str(inner)
    return f"size_{place}"


def _result(out: Any, scope: Scope) -> Expression:
    return scope.value(out) if isinstance(out, Value) else Verbatim(argument_source(out, str))
