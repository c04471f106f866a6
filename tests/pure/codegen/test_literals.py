"""Sizes and literals, written as Python that means the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from codegen.spelling.literals import argument_source, dim_source, expr_source, shape_source
from ir.graph import THIS_DEVICE
from runtime.call.expressions import SizeExpression
from tests.support.models.graphs import value

batch, seq = (sympy.Symbol(name, integer=True, positive=True) for name in ("batch", "seq"))

_OPERATORS: list[Callable[[Any, Any], Any]] = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b,
    lambda a, b: FloorDiv(a, b),
    lambda a, b: Mod(a, b),
    Max,
    Min,
]


@st.composite
def sizes(draw: st.DrawFn) -> sympy.Expr:
    """What torch makes of sizes: sums, products, floored quotients, remainders, larger and smaller ones."""
    expr = draw(st.sampled_from([batch, seq]))
    for _ in range(draw(st.integers(1, 4))):
        other = draw(st.sampled_from([batch, seq, *map(sympy.Integer, (1, 2, 3, 8))]))
        expr = draw(st.sampled_from(_OPERATORS))(expr, other)
    return expr


@settings(derandomize=True, deadline=None)
@given(expr=sizes(), numbers=st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_a_size_means_the_same_in_python(expr: sympy.Expr, numbers: tuple[int, int]) -> None:
    named = dict[str, int](zip(("batch", "seq"), numbers, strict=True))
    try:
        expected = int(expr.subs({batch: named["batch"], seq: named["seq"]}))
    except (ZeroDivisionError, TypeError):
        assume(False)
    text = str(dim_source(expr))
    assert eval(text, {"math": math}, named) == expected
    assert SizeExpression.parse(text, ["batch", "seq"])(named) == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (8**-0.5, "8**-0.5"),
        (-(72**-0.5), "-72**-0.5"),
        (512**0.5, "512**0.5"),
        (math.log(16 / 2), "math.log(8)"),
        (math.sqrt(2 / math.pi), "math.sqrt(2 / math.pi)"),
        (torch.finfo(torch.float32).min, "torch.finfo(torch.float32).min"),
        (torch.finfo(torch.bfloat16).max, "torch.finfo(torch.bfloat16).max"),
        (0.0625, "0.0625"),
        (1e-06, "1e-06"),
        (0.123456789012345678, "0.12345678901234568"),
    ],
)
def test_a_number_of_many_digits_is_what_it_follows_from(number: float, text: str) -> None:
    assert argument_source(number, str) == text
    assert eval(text, {"math": math, "torch": torch}) == number


def test_quotients_are_in_parentheses_where_they_must_be() -> None:
    strided = FloorDiv(batch - 1, 4) + 1
    assert dim_source(strided) == "(batch - 1) // 4 + 1"
    assert dim_source(FloorDiv(FloorDiv(seq, 4), 3)) == "seq // 12"
    assert dim_source(2 * FloorDiv(seq, 4) - FloorDiv(batch, 3)) == "2*(seq // 4) - (batch // 3)"
    assert dim_source(seq - 4 * FloorDiv(batch, 3)) == "seq - 4*(batch // 3)"
    assert dim_source(FloorDiv(strided, 2)) == "((batch - 1) // 4 + 1) // 2"
    assert expr_source(sympy.Eq(Mod(seq, 8), 0)) == "(seq % 8) == 0"


def test_a_number_with_a_fraction_is_as_short_as_python_writes_it() -> None:
    half, tenth = (seq - sympy.Float(number) for number in (0.5, 0.1))
    assert (dim_source(half), dim_source(tenth)) == ("seq - 0.5", "seq - 0.1")


def test_a_shape_is_numbers_and_expressions() -> None:
    assert shape_source((batch, 2 * seq, 8)) == ("batch", "2*seq", 8)


@pytest.mark.parametrize(
    "literal",
    [
        *(None, True, 3, -1, 0.1, 1e-12, -0.0, float("inf"), float("-inf"), "none", [1, [2, None]]),
        *(torch.bfloat16, torch.strided, torch.channels_last, 2**63 - 1),
    ],
)
def test_a_literal_reads_back(literal: object) -> None:
    found = eval(argument_source(literal, str), {"torch": torch, "float": float})
    assert (type(found), found) == (type(literal), literal)
    assert str(found) == str(literal)  # the sign of zero


def test_what_is_not_a_number_reads_back() -> None:
    assert math.isnan(eval(argument_source(float("nan"), str)))


def test_values_sizes_and_the_device() -> None:
    args = [value("x"), (2 * seq, 2), THIS_DEVICE]
    assert argument_source(args, lambda v: f"self.{v.name}") == "[self.x, [2*seq, 2], device]"
