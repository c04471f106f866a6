"""The sizes that a function computes with: read off the shapes of its arguments, and named where they are long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import sympy

from codegen.lines.line import Bind, Line
from codegen.lines.scopes.scope import Scope
from codegen.spelling.expressions import Attribute, Expression, Subscript, Verbatim
from codegen.spelling.literals import expr_source
from codegen.spelling.size_names import long_sizes, size_name
from codegen.structure.program import Statement, walk
from ir.graph import THIS_DEVICE, Call, Value, dims
from ir.objects.nested import nested_leaves
from ir.operators.higher_order import with_inner


def opening_lines(scope: Scope, inputs: Sequence[Value], body: Sequence[Statement]) -> Iterator[Line]:
    """Lines that read sizes off the shapes of arguments, name those that follow from one, and read the device."""
    shown = dims(inputs)
    by_value: dict[Value, dict[int, str]] = {}
    needed = scope.file.needed(body)
    for symbol in needed:
        if symbol in shown:
            value, dim = shown[symbol]
            by_value.setdefault(value, {})[dim] = str(symbol)
    for value, found in by_value.items():
        yield from _read_shape(Attribute(scope.value(value), "shape"), found, len(value.type.shape))
    calls = [call for s in walk(body) if isinstance(s, Call) for call in with_inner(s)]
    yield from _named(scope, inputs, calls, needed)
    if any(a is THIS_DEVICE for call in calls for a in nested_leaves((call.args, dict(call.kwargs)))):
        yield Bind(("device",), (scope.device(inputs, body),))


def _read_shape(shape: Expression, found: Mapping[int, str], rank: int) -> Iterator[Bind]:
    """`batch, seq = x.shape[:2]`, or a line for each size where they are not the first ones."""
    first = sorted(found)
    if len(first) > 1 and first == list(range(len(first))):
        part = shape if len(first) == rank else Subscript(shape, slice(len(first)))
        yield Bind(tuple(found[d] for d in first), (part,))
    else:
        yield from (Bind((found[d],), (Subscript(shape, d),)) for d in first)


def _named(
    scope: Scope, inputs: Sequence[Value], calls: Sequence[Call], known: Collection[sympy.Symbol]
) -> Iterator[Bind]:
    """`height_4 = (height - 1) // 4 + 1`, for each long size that is there several times."""
    for size, count in Counter(size for call in calls for size in long_sizes(call)).items():
        if count > 1 and size.free_symbols <= set(known):
            name = scope.names.fresh(size_name(size), frozenset(inputs))
            scope.names.reserved |= {name}
            scope.sizes[size] = name
            yield Bind((name,), (Verbatim(expr_source(size)),))
