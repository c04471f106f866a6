"""Flops of operators from outside torch, by the formulas that were registered for torch.utils.flop_counter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from ir.analysis.arguments import as_number, operator_arguments
from ir.graph import Call, Value
from ir.sizes import Dim, at


def registered_flops(node: Call, sizes: Mapping[sympy.Symbol, int]) -> Dim | None:
    """The flops of a call over its sizes, or at the example's `sizes` where a formula takes numbers alone.

    None for an operator without a formula, and where the formula fails.
    """
    formula = flop_registry.get(node.op._overloadpacket)
    if formula is None:
        return None
    for shape in (lambda v: v.type.shape, lambda v: _without_data(v, sizes)):
        try:
            args, kwargs = operator_arguments(node, shape, lambda size: as_number(size, sizes), torch.device("meta"))
            results: list[Any] = tree_map(shape, list(node.results))
            found = formula(*args, **kwargs, out_val=results if node.unpacks else results[0])
        except Exception:  # whatever a formula of the user's raises
            continue
        return found if isinstance(found, sympy.Expr) else int(found)
    return None


def _without_data(value: Value, sizes: Mapping[sympy.Symbol, int]) -> torch.Tensor:
    return torch.empty([at(d, sizes) for d in value.type.shape], dtype=value.type.dtype, device="meta")
