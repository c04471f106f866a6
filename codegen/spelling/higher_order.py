"""Higher-order operators: `torch.ops.higher_order.cond(positive, true_fn, false_fn, (x,))`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codegen.spelling.literals import argument_source
from ir.objects.signature import Slot
from ir.operators.higher_order import Body, HigherOrder


def higher_order_source(what: HigherOrder, names: Mapping[Body, str], operands: Sequence[str]) -> str:
    """The call of the operator with its `operands`, where the functions have these names."""

    def written(arg: Any) -> str:
        match arg:
            case Slot(index):
                return operands[index]
            case Body():
                return names[arg]
            case tuple():
                return f"({', '.join(map(written, arg))}{',' if len(arg) == 1 else ''})"
            case list():
                return f"[{', '.join(map(written, arg))}]"
            case dict():
                return f"{{{', '.join(f'{key!r}: {written(value)}' for key, value in arg.items())}}}"
        return argument_source(arg, str)

    return f"torch.ops.higher_order.{what.op.name()}({', '.join(map(written, what.arguments))})"
