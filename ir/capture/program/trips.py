"""The number of turns of a loop, where its condition hangs on a counter that can be followed without the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._ops import HigherOrderOperator

from ir.analysis.arguments import as_number, operator_arguments
from ir.graph import Call, Constant, Value
from ir.objects.signature import Slot
from ir.operators.higher_order import Body

_MOST = 1000  # turns that are followed
_SMALL = 16  # elements of a tensor that may be a counter
_CPU = torch.device("cpu")

Hints = Mapping[sympy.Symbol, int]


def trips(
    op: HigherOrderOperator,
    arguments: tuple[Any, ...],
    operands: Sequence[Value],
    producer: Mapping[Value, Call],
    hints: Hints,
) -> int:
    """The turns of a while_loop at the sizes of the example, at most 1000; 1 where values decide, and for others."""
    if op.name() != "while_loop":
        return 1
    condition, body, carried, further = arguments
    state = [_constant(operands[a.index], producer, hints) if isinstance(a, Slot) else a for a in carried]
    rest: list[Any] = [None] * len(further)
    for turn in range(_MOST):
        [goes_on] = _results(condition, [*state, *rest], hints)
        if goes_on is None:
            return 1
        if not goes_on:
            return turn
        state = _results(body, [*state, *rest], hints)
    return _MOST


def _constant(value: Value, producer: Mapping[Value, Call], hints: Hints) -> torch.Tensor | None:
    """A small tensor that does not hang on the model's inputs and weights."""
    if isinstance(value, Constant):
        return value.data
    if value not in producer:
        return None
    known = {v: _constant(v, producer, hints) for v in producer[value].operands}
    return _made(producer[value], known, hints).get(value)


def _results(body: Body, given: Sequence[Any], hints: Hints) -> list[Any]:
    """The results of a function as far as they follow from the arguments that are not None."""
    known: dict[Any, Any] = dict(zip(body.inputs, given, strict=True))
    sizes = {**hints, **{s: n for s, n in known.items() if isinstance(s, sympy.Symbol) and n is not None}}
    for node in body.nodes:
        known |= _made(node, known, sizes)

    def result(out: Any) -> Any:
        match out:
            case Value():
                return known.get(out)
            case sympy.Basic():
                return as_number(out, sizes) if out.free_symbols <= sizes.keys() else None
        return out

    return [result(out) for out in body.outputs]


def _made(call: Call, known: Mapping[Any, Any], hints: Hints) -> dict[Value, Any]:
    """The results of a node whose operands are all known and small."""
    told = all(known.get(v) is not None for v in call.operands) and call.symbols <= hints.keys()
    small = all(isinstance(v.type.numel, int) and v.type.numel <= _SMALL for v in call.results)
    if not (told and small) or torch.Tag.nondeterministic_seeded in call.op.tags:
        return {}
    args, kwargs = operator_arguments(call, known.__getitem__, lambda e: as_number(e, hints), _CPU)
    out = call.op(*args, **kwargs)
    return dict(zip(call.results, out if call.unpacks else [out], strict=True))
