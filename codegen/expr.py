"""Sizes and literals as Python source."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch.utils._sympy.printers import PythonPrinter

from ir.graph import THIS_DEVICE, Dim, Value


def dim_source(dim: Dim) -> int | str:
    """A size as the manifest writes it: a number, or a Python expression over the symbols."""
    return dim if isinstance(dim, int) else str(PythonPrinter().doprint(dim))


def shape_source(shape: tuple[Dim, ...]) -> tuple[int | str, ...]:
    return tuple(map(dim_source, shape))


def argument_source(arg: Any, name_of: Any) -> str:
    """An argument of an operator; `name_of` writes a Value."""
    match arg:
        case Value():
            return name_of(arg)
        case list() | tuple():
            return f"[{', '.join(argument_source(a, name_of) for a in arg)}]"
        case sympy.Basic():
            return str(PythonPrinter().doprint(arg))
        case torch.dtype() | torch.layout() | torch.memory_format():
            return str(arg)
        case float() if arg in (float("inf"), float("-inf")) or arg != arg:
            return f'float("{arg}")'
        case _:
            return "device" if arg is THIS_DEVICE else repr(arg)
