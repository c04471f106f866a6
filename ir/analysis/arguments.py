"""Arguments of a node's operator: tensors for values and numbers for sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from torch.utils._pytree import tree_map

from ir.graph import THIS_DEVICE, Call, Value
from ir.sizes import at, bound


def operator_arguments(
    call: Call, tensor: Callable[[Value], Any], number: Callable[[sympy.Basic], Any], device: torch.device
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments as the operator takes them: a `tensor` for a value, a `number` for a size."""

    def read(arg: Any) -> Any:
        match arg:
            case Value():
                return tensor(arg)
            case sympy.Basic():
                return number(arg)
            case _:
                return device if arg is THIS_DEVICE else arg

    return tree_map(read, (call.args, dict(call.kwargs)))


def as_number(expr: sympy.Basic, sizes: Mapping[sympy.Symbol, int]) -> int | float | bool:
    """A size expression as a Python number."""
    value = bound(expr, sizes)
    if value in (sympy.true, sympy.false):
        return bool(value)
    return at(value, {}) if value.is_integer else float(value)  # type: ignore[attr-defined, arg-type]
