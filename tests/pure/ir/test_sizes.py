"""Conditions on sizes: in Python's arithmetic they hold where they do in sympy's."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import sympy
from torch.utils._sympy import functions

from ir import sizes as sizes_module
from ir.sizes import _in_python, bound, hold, number_at

FloorDiv, Max, Min, Mod, PythonMod = (
    getattr(functions, name)
    for name in ("FloorDiv", "Max", "Min", "Mod", "PythonMod")  # of which pyright knows no types
)
n, m = (sympy.Symbol(name, integer=True, positive=True) for name in ("n", "m"))
Eq: Any = sympy.Eq

CONDITIONS: list[Any] = [
    Eq(FloorDiv(n, 3) + 1, 2),
    Eq(Mod(n + 4, 2 * m), 0),
    sympy.Ne(Mod(n - m, 3), 0),  # where n is less than m, the remainder is that of a negative number
    Eq(Mod(n, FloorDiv(n, m)), 0),  # where m is more than n, the divisor is 0
    sympy.Or(Eq(n, 2), FloorDiv(8, n - m) > 1),
    sympy.And(n < 2 * m, m <= 3, n * m >= 2, n > 1),
    sympy.Ge(PythonMod(n - m, 3), 1),
    sympy.Lt(Max(n, m) - Min(n, 2 * m), 3),
    sympy.Not(sympy.Or(Eq(n, m + 1), Eq(Mod(m, 2), 1))),
]


def holds_in_sympy(condition: sympy.Basic, sizes: dict[sympy.Symbol, int]) -> bool:
    try:
        return bound(condition, sizes) == sympy.true
    except (ZeroDivisionError, AssertionError):
        return False


@pytest.mark.parametrize("condition", CONDITIONS, ids=str)
def test_a_condition_holds_where_it_does_in_sympy(condition: sympy.Basic) -> None:
    assert _in_python(condition) is not None
    points = [{n: a, m: b} for a, b in product(range(1, 7), repeat=2)]
    found = [hold([condition], sizes) for sizes in points]
    assert found == [holds_in_sympy(condition, sizes) for sizes in points]
    assert {True, False} == set(found)


def test_what_python_does_not_compute_is_left_to_sympy() -> None:
    condition = sympy.Gt(sympy.sqrt(n), 2)
    assert _in_python(condition) is None
    assert [hold([condition], {n: size}) for size in (4, 5)] == [False, True]


def test_a_condition_on_a_size_that_is_not_given_does_not_hold() -> None:
    assert not hold([sympy.Lt(n, m)], {n: 1})
    assert hold([sympy.Le(n, n), sympy.Le(n, 2)], {n: 1})


@pytest.mark.parametrize("size", [FloorDiv(n, 3) + 1, 4 * Max(n, m) - Min(n, 2 * m), Mod(n, 2 * m) * 2, m * n], ids=str)
def test_a_size_is_the_number_that_sympy_finds(size: sympy.Expr, monkeypatch: pytest.MonkeyPatch) -> None:
    points = [{n: a, m: b} for a, b in product(range(1, 7), repeat=2)]
    numbers = [bound(size, sizes) for sizes in points]
    monkeypatch.setattr(sizes_module, "bound", None)  # which takes fifty times as long
    assert [number_at(size, sizes) for sizes in points] == numbers


def test_sizes_that_python_does_not_compute_are_left_to_sympy() -> None:
    assert number_at(sympy.sqrt(n), {n: 4}) == 2
    assert number_at(sympy.nan, {}) is sympy.nan
    assert number_at(n + m, {n: 1}) == m + 1
    assert number_at(3, {}) == 3
