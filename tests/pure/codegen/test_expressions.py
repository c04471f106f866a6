"""Expressions as Python, and what they are called after."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from codegen.spelling.expressions import (
    Attribute,
    EmptyList,
    Expression,
    Invocation,
    Operation,
    Subscript,
    Tuple,
    Variable,
    source,
    subexpressions,
    subject,
)
from codegen.spelling.paths import Paths
from ir.graph import Call
from tests.support.models.graphs import add, value

aten = torch.ops.aten
X, SELF = Variable("x"), Variable("self")
LAYER = Subscript(Attribute(SELF, "layers"), 3)


@pytest.mark.parametrize(
    ("expression", "text", "name"),
    [
        (X, "x", "x"),
        (Attribute(LAYER, "weight"), "self.layers[3].weight", "weight"),
        (Attribute(Attribute(SELF, "0"), "class"), 'getattr(getattr(self, "0"), "class")', "self"),
        (Subscript(X, slice(2)), "x[:2]", "x"),
        (Subscript(X, slice(0, 9, 3)), "x[0:9:3]", "x"),
        (Tuple((X,)), "(x,)", ""),
        (EmptyList(), "[]", ""),
        (Invocation(LAYER, (X,), (("seq", "seq"),)), "self.layers[3](x, seq=seq)", "x"),
    ],
)
def test_expressions(expression: Expression, text: str, name: str) -> None:
    assert source(expression) == text
    assert subject(expression) == name


def test_operands_of_operators_are_in_parentheses_where_they_must_be() -> None:
    a, b = value("a"), value("b")
    inner = Operation(add(a, b, "c"), {a: X, b: LAYER})
    outer = Operation(Call(op=torch.ops.aten.mul.Tensor, args=(a, b), results=(value("d"),)), {a: inner, b: inner})
    assert source(outer) == "(x + self.layers[3]) * (x + self.layers[3])"
    assert source(Invocation(Attribute(inner, "clone"))) == "(x + self.layers[3]).clone()"
    assert subject(outer) == "x"
    assert [e for e in subexpressions(outer) if isinstance(e, Operation)] == [inner, inner, outer]


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([(aten.unsqueeze.default, 1), (aten.unsqueeze.default, 2)], "x[:, None, None]"),
        ([(aten.unsqueeze.default, 0), (aten.unsqueeze.default, -1)], "x[None, ..., None]"),
        ([(aten.slice.Tensor, 1, 2, 4), (aten.slice.Tensor, 3, 0, -1)], "x[:, 2:4, :, :-1]"),
        ([(aten.slice.Tensor, 2, 0, 2**63 - 1, 2), (aten.slice.Tensor, 3, 1)], "x[..., ::2, 1:]"),
        ([(aten.select.int, 1, -1), (aten.select.int, 1, 0)], "x[:, -1, 0]"),
        ([(aten.select.int, 0, 1), (aten.unsqueeze.default, 0)], "x[1].unsqueeze(0)"),
        ([(aten.unsqueeze.default, 1), (aten.select.int, 0, 0), (aten.slice.Tensor, 1, 0, 2)], "x[0, None, :2]"),
        ([(aten.slice.Tensor, 1, 1), (aten.slice.Tensor, 1, 1)], "x[:, 1:][:, 1:]"),
        ([(aten.unsqueeze.default, 0), (aten.squeeze.dim, 0)], "x.unsqueeze(0).squeeze(0)"),
    ],
)
def test_a_chain_of_slices_picks_and_new_dimensions_is_one_subscript(steps: list[tuple[Any, ...]], text: str) -> None:
    x = torch.arange(3 * 5 * 4 * 6).view(3, 5, 4, 6)
    found, given, expression = x, value("x", *x.shape), X
    for op, *args in steps:
        found = op(found, *args)
        call = Call(op=op, args=(given, *args), results=(value("y", *found.shape),))
        given, expression = call.results[0], Operation(call, {given: expression})
    assert source(expression) == text
    again = eval(text, {"x": x})
    assert torch.equal(again, found)
    assert (again.stride(), again.storage_offset()) == (found.stride(), found.storage_offset())


def test_paths_go_by_index_through_lists_and_around_the_method_load() -> None:
    paths = Paths(frozenset({"h.0.w", "h.1.w", "load"}), frozenset())
    assert [source(paths.reach(SELF, "", p)) for p in ("h.1.w", "load")] == ["self.h[1].w", 'self._parameters["load"]']
    assert source(paths.reach(Variable("layer"), "h.0", "h.0.w")) == "layer.w"
