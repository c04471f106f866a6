"""Expressions as Python, and what they are called after."""

from __future__ import annotations

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
    assert subject(outer) == "x"
    assert [e for e in subexpressions(outer) if isinstance(e, Operation)] == [inner, inner, outer]


def test_paths_go_by_index_through_lists_and_around_the_method_load() -> None:
    paths = Paths(frozenset({"h.0.w", "h.1.w", "load"}), frozenset())
    assert [source(paths.reach(SELF, "", p)) for p in ("h.1.w", "load")] == ["self.h[1].w", 'self._parameters["load"]']
    assert source(paths.reach(Variable("layer"), "h.0", "h.0.w")) == "layer.w"
