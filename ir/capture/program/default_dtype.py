"""Dtypes that a model took from torch's default dtype, stated where they are: other processes may have another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import sympy
import torch

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.borders import Namer
from ir.graph import THIS_DEVICE, Call, Graph, Node, Value, is_whole
from ir.location import Where
from ir.operators.facts import aten
from ir.operators.higher_order import Body, is_higher_order, with_bodies
from ir.sizes import TensorType, at


def with_stated_dtypes(graph: Graph) -> Graph:
    """The graph whose results have their dtypes under any default: `zeros(3, dtype=float32)`, `n.to(float32) / 2`."""
    namer = Namer(graph.names)
    sizes = graph.traced_sizes
    return replace(graph, nodes=tuple(new for node in graph.nodes for new in _stated(node, sizes, namer)))


def _stated(node: Node, sizes: Mapping[sympy.Symbol, int], namer: Namer) -> Iterator[Node]:
    """The node, or nodes in its place whose last one makes its results."""
    if isinstance(node, Call) and is_higher_order(node):
        yield with_bodies(node, lambda body: _stated_body(body, sizes))
        return
    if not isinstance(node, Call) or not _asks_for_default(node, sizes):
        yield node
        return
    dtype = _real(node.results[0].type.dtype)
    if "dtype" in node.arguments:
        yield replace(node, kwargs={"dtype": node.results[0].type.dtype, **node.kwargs})
        return
    if node.op is aten.where.Scalar:
        condition, first, second = node.args
        number = Value(namer("number"), TensorType((), dtype))
        made = {"dtype": dtype, "device": THIS_DEVICE}
        yield Call(op=aten.full.default, args=([], first), kwargs=made, results=(number,), where=node.where)
        yield replace(node, op=aten.where.ScalarOther, args=(condition, number, second))
        return
    casts = {v: Value(namer(f"{v.name}_cast"), TensorType(v.type.shape, dtype)) for v in _numbers(node)}
    yield from (_cast(value, cast, node.where) for value, cast in casts.items())
    yield _with_operands(node, casts)


def _stated_body(body: Body, sizes: Mapping[sympy.Symbol, int]) -> Body:
    namer = Namer({v.name for node in body.nodes for v in (*node.operands, *node.results)})
    return body.map(lambda node: [n for n in _stated(node, sizes, namer) if isinstance(n, Call)])


def _asks_for_default(call: Call, sizes: Mapping[sympy.Symbol, int]) -> bool:
    """Whether the dtype of the results would be another if torch's default were, which forward may set itself."""
    given = any(_is_inexact(v.type.dtype) for v in call.operands)
    made = next((_real(v.type.dtype) for v in call.results if _is_inexact(v.type.dtype)), None)
    if given or is_whole(call) or made is None:
        return False

    def operand(value: Value) -> torch.Tensor:
        return torch.empty([at(d, sizes) for d in value.type.shape], dtype=value.type.dtype, device="meta")

    args, kwargs = operator_arguments(call, operand, lambda e: as_number(e, sizes), torch.device("meta"))
    try:
        with _default_dtype(torch.float32 if made is torch.float64 else torch.float64), torch.no_grad():
            out = call.op(*args, **kwargs)
    except Exception:  # an operator that needs values
        return False
    found = list(out) if call.unpacks else [out]
    pairs = zip(found, call.results, strict=True)
    return any(isinstance(t, torch.Tensor) and t.dtype is not v.type.dtype for t, v in pairs)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _numbers(call: Call) -> list[Value]:
    """The operands that are converted to the default dtype: all but conditions."""
    return [v for name, v in call.arguments.items() if isinstance(v, Value) and name != "condition"]


def _cast(value: Value, result: Value, where: Where) -> Call:
    return Call(op=aten.to.dtype, args=(value, result.type.dtype), results=(result,), where=where)


def _with_operands(call: Call, new: Mapping[Value, Value]) -> Call:
    """The call with other operands, conditions aside."""

    def operand(name: str, arg: Any) -> Any:
        return new.get(arg, arg) if isinstance(arg, Value) and name != "condition" else arg

    names = [a.name for a in call.op._schema.arguments]
    args = tuple(operand(name, arg) for name, arg in zip(names, call.args, strict=False))
    return replace(call, args=args, kwargs={name: operand(name, arg) for name, arg in call.kwargs.items()})


def _is_inexact(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype
