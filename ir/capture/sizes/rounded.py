"""Sizes rounded up to a multiple, in a form of which torch sees what divides them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import sympy
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod


@contextmanager
def rounded_sizes() -> Iterator[None]:
    """Write what a model pads as a multiple less a size inside the context.

    `x + (4 - x % 4) % 4` is then `4 * ((x + 3) // 4)`, which 4 divides.  In torch's own form that shows nowhere: each
    view of the padded tensor takes it seconds, and leaves conditions that the model does not have.
    """
    with ExitStack() as patches:
        for remainder in (Mod, PythonMod):
            patches.enter_context(patch.object(remainder, "eval", classmethod(_padding(remainder.eval.__func__))))  # type: ignore[attr-defined]
        patches.enter_context(patch.object(FloorDiv, "eval", classmethod(_of_even(FloorDiv.eval.__func__))))  # type: ignore[attr-defined]
        yield


def _padding(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """The evaluation of a remainder, with that of `n - x % n` by `n` as `n * ((x + n - 1) // n) - x`."""

    def padding(cls: type, number: sympy.Basic, divisor: sympy.Basic) -> Any:
        if isinstance(number, sympy.Add) and isinstance(divisor, sympy.Integer) and divisor > 0:
            remainder = divisor - number
            if isinstance(remainder, (Mod, PythonMod)) and remainder.args[1] == divisor:
                size: Any = remainder.args[0]
                return divisor * FloorDiv(size + divisor - 1, divisor) - size
        return evaluate(cls, number, divisor)

    return padding


def _of_even(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """The evaluation of a quotient, with `x + x % 2` in the dividend as `2 * ((x + 1) // 2)`."""

    def of_even(cls: type, number: sympy.Basic, divisor: sympy.Basic) -> Any:
        for term in number.args if isinstance(number, sympy.Add) else ():
            count, remainder = term.as_coeff_Mul()  # type: ignore[attr-defined]
            if isinstance(remainder, (Mod, PythonMod)) and remainder.args[1] == 2:
                size: Any = remainder.args[0]
                if number.coeff(size) == count:  # type: ignore[attr-defined]
                    return FloorDiv(number - count * (size + remainder - 2 * FloorDiv(size + 1, 2)), divisor)
        return evaluate(cls, number, divisor)

    return of_even
