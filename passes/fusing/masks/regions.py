"""Conditions in the formula of a mask, decided for all positions on one side of its diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from ir.graph import Graph
from ir.sizes import Dim


@dataclass(frozen=True)
class Regions:
    """The two regions of a mask of shape `[rows, columns]`: positions (q, k) with k <= q (causal), and the others."""

    q: sympy.Symbol
    k: sympy.Symbol
    rows: Dim
    columns: Dim
    graph: Graph

    def settle(self, formula: Any, causal: bool) -> Any:
        """The formula with true or false for each condition that is the same everywhere in a region."""
        while True:
            conditions = formula.atoms(sympy.core.relational.Relational)
            inner = [c for c in conditions if not any(c.has(other) for other in conditions if other != c)]
            settled = {c: truth for c in inner if (truth := self._holds(c, causal)) is not None}
            if not settled:
                return formula
            formula = formula.xreplace(settled)

    def _holds(self, condition: Any, causal: bool) -> sympy.Basic | None:
        """True or false if the condition is so everywhere in the region, else None."""
        left, right = condition.args
        match condition:
            case sympy.Eq():
                return self._is_zero(left - right, causal)
            case sympy.Ne():
                equal = self._is_zero(left - right, causal)
                return None if equal is None else sympy.Not(equal)
            case sympy.Le():
                return self._is_natural(right - left, causal)
            case sympy.Lt():
                return self._is_natural(right - left - 1, causal)
            case sympy.Ge():
                return self._is_natural(left - right, causal)
            case _:
                return self._is_natural(left - right - 1, causal)

    def _is_zero(self, number: Any, causal: bool) -> sympy.Basic | None:
        ends = self._is_natural(number, causal), self._is_natural(-number, causal)
        if sympy.false in ends:
            return sympy.false
        return sympy.true if ends == (sympy.true, sympy.true) else None

    def _is_natural(self, number: Any, causal: bool) -> sympy.Basic | None:
        """Whether an integer is 0 or more: true or false if it is so everywhere in the region, else None."""
        number = sympy.expand(number)
        if not number.is_integer:
            return None
        if number == self.q - self.k:
            return sympy.true if causal else sympy.false
        if number == self.k - self.q - 1:
            return sympy.false if causal else sympy.true
        corners = [sympy.expand(number.subs(corner)) for corner in self._corners(causal)] if self._flat(number) else []
        if corners and all(self._least(c) >= 0 for c in corners):
            return sympy.true
        if corners and all(self._least(-1 - c) >= 0 for c in corners):
            return sympy.false
        return None

    def _flat(self, number: Any) -> bool:
        """Whether a number is linear in q and k, and so has its extremes at corners."""
        slopes = (number.diff(place) for place in (self.q, self.k))
        return all(slope.is_number for slope in slopes) and not number.has(sympy.Piecewise)

    def _corners(self, causal: bool) -> Sequence[Mapping[Any, Any]]:
        """The corners (q, k) of a convex area that contains the region, at all sizes."""
        row, column = self.rows - 1, self.columns - 1
        if self.rows != self.columns:
            found = [(0, 0), (0, column), (row, 0), (row, column)]
        elif causal:
            found = [(0, 0), (row, 0), (row, column)]
        else:
            found = [(0, 1), (0, column), (row - 1, column)]
        return [{self.q: q, self.k: k} for q, k in found]

    def _least(self, size: Any) -> float:
        """A lower bound of a sum of sizes, from their ranges."""
        least = 0.0
        for term, factor in size.as_coefficients_dict().items():
            low, high = (1, 1) if term == 1 else self.graph.ranges.get(term, (-sympy.oo, sympy.oo))
            end = low if factor > 0 else high
            least += float(factor) * float(sympy.oo if end is None else end)
        return least
