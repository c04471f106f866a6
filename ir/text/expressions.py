"""Expressions of sizes, and conditions on them, as Python that a person would write."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE, precedence
from torch.utils._sympy.functions import FloorDiv
from torch.utils._sympy.printers import PythonPrinter


class _Printer(PythonPrinter):
    """torch's printer of sizes, with sums and quotients as people write them, without torch's names.

    `seq - 1`, not `(-1) + seq`; `(seq - 1) // 2 + 1`, not `((seq - 1) // 2) + 1`.
    """

    def _print_Add(self, expr: sympy.Expr, order: str | None = None) -> str:
        terms = [(self._print(term), term) for term in self._as_ordered_terms(expr, order=order)]
        texts: list[str] = []
        for text, term in sorted(terms, key=lambda t: t[0].startswith("-")):
            bare = isinstance(term, FloorDiv) or precedence(term) >= PRECEDENCE["Add"]
            sign, text = ("-", text[1:]) if text.startswith("-") else ("+", text)
            texts += [sign, text if bare else f"({text})"]
        return texts[0].strip("+") + " ".join(texts[1:])

    def _print_Mul(self, expr: sympy.Expr) -> str:
        factors: list[Any] = [*expr.args]
        first, *others = factors
        negative = bool(first.is_Number and first.is_negative)
        if negative:
            factors = others if first == -1 else [-first, *others]
        return "-" * negative + self.stringify(factors, "*", PRECEDENCE["Mul"])

    def _print_Float(self, expr: sympy.Expr) -> str:
        return repr(float(expr))

    def _print_ToFloat(self, expr: sympy.Basic) -> str:
        return f"float({self.doprint(expr.args[0])})"


@lru_cache(maxsize=1 << 16)  # a graph has few expressions, each in many of its types and arguments
def printed(expr: sympy.Basic) -> str:
    """A size or a condition on sizes as a Python expression."""
    return str(_Printer().doprint(expr))
