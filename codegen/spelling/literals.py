"""Sizes and literals as Python source."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sympy
import torch
from sympy.printing.str import StrPrinter
from torch.utils._sympy.printers import PythonPrinter

from ir.graph import THIS_DEVICE, Value
from ir.sizes import Dim


class _Printer(PythonPrinter):
    """torch's printer of sizes, with sums as people write them: `seq - 1`, not `(-1) + seq`; without torch's names."""

    _print_Add = StrPrinter._print_Add

    def _print_Float(self, expr: sympy.Expr) -> str:
        return repr(float(expr))

    def _print_ToFloat(self, expr: sympy.Basic) -> str:
        return f"float({self.doprint(expr.args[0])})"


@lru_cache(maxsize=1 << 16)  # a graph has few expressions, each in many of its types and arguments
def expr_source(expr: sympy.Basic) -> str:
    """A size or a condition on sizes as a Python expression."""
    return str(_Printer().doprint(expr))


def dim_source(dim: Dim) -> int | str:
    """A size as the manifest writes it: a number, or a Python expression over the symbols."""
    return dim if isinstance(dim, int) else expr_source(dim)


def shape_source(shape: tuple[Dim, ...]) -> tuple[int | str, ...]:
    """A shape as the manifest writes it."""
    return tuple(map(dim_source, shape))


def argument_source(arg: Any, name_of: Any) -> str:
    """An argument of an operator; `name_of` writes a Value."""
    match arg:
        case Value():
            return name_of(arg)
        case list() | tuple():
            return f"[{', '.join(argument_source(a, name_of) for a in arg)}]"
        case sympy.Basic():
            return expr_source(arg)
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(arg)
        case float() if arg in (float("inf"), float("-inf")) or arg != arg:
            return f'float("{arg}")'
        case _:
            return "device" if arg is THIS_DEVICE else repr(arg)
