"""The values of a size that guards leave, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile

import sympy
from sympy.core.relational import Relational
from torch.utils._sympy.functions import Mod

from ir.capture.sizes.guards import always_true
from ir.capture.sizes.questions import Question
from ir.sizes import hold

_STEPS = 2048  # values looked at on each side of the example's
_NEAR, _FAR = 64, range(960, 1080)  # values at which one guard may follow from others


@dataclass(frozen=True)
class Allowed:
    """The values of `symbol` near the example's that guards about it alone leave."""

    symbol: sympy.Symbol
    example: int
    least: int  # all values from here to `most` are allowed
    most: int | None  # None: no end was found
    others: tuple[int, ...]  # the next ones, behind values that are not allowed

    @property
    def is_single(self) -> bool:
        return self.least == self.most and not self.others

    def __str__(self) -> str:
        further = f", {', '.join(map(str, self.others))} and so on" if self.others else ""
        if self.least != self.most:
            return (f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}") + further
        values = (self.example, *self.others)
        [step, *more] = {b - a for a, b in pairwise(values)} or {0}
        if step and not more:
            rest = self.example % step
            return f"a multiple of {step}" + (f" plus {rest}" if rest else "")
        return f"{self.example}{further}"


def allowed_values(
    symbol: sympy.Symbol, guards: Sequence[sympy.Basic], bounds: tuple[int, int | None], example: int
) -> Allowed:
    """The values around the example's at which all of `guards`, about `symbol` alone, hold."""
    low, high = bounds

    def fits(size: int) -> bool:
        return hold(guards, {symbol: size})

    up = range(example + 1, min(example + _STEPS, high or example + _STEPS) + 1)
    down = range(example - 1, max(low, example - _STEPS) - 1, -1)
    most = max(takewhile(fits, up), default=example)
    least = min(takewhile(fits, down), default=example)
    open_ended = bool(up) and most == up[-1] and high is None
    above, below = (s for s in up if s > most), (s for s in down if s < least)
    others = tuple(islice(filter(fits, above), 3)) or tuple(islice(filter(fits, below), 3))
    return Allowed(symbol, example, least, None if open_ended else most, others)


def guard_notes(
    guards: Sequence[sympy.Basic],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
    hints: Mapping[sympy.Symbol, int],
    questions: Sequence[Question],
) -> Iterator[str]:
    """A note on each guard: what the model asks of sizes, where, and which values that leaves.

    There is none on a guard that all sizes meet, or all that those before it leave.
    """
    for i, guard in enumerate(guards):
        if _is_met(guard, guards[:i], ranges, hints):
            continue
        names = sorted(map(str, guard.free_symbols))
        place = next((q.at for q in questions if q.assumed == guard), "")
        asks = f"the stages are right where {guard_text(guard)}{place}"
        if len(names) == 1:
            [symbol] = guard.free_symbols
            left = allowed_values(symbol, [guard], ranges[symbol], hints[symbol])  # type: ignore[index]
            if (left.least, left.most) != ranges[symbol]:  # type: ignore[index]
                yield f"`{symbol}` must be {left}: {asks}"
        elif not always_true(guard, ranges):
            yield f"{asks}: other {' and '.join(f'`{name}`' for name in names)} are refused"


def _is_met(
    guard: sympy.Basic,
    before: Sequence[sympy.Basic],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
    hints: Mapping[sympy.Symbol, int],
) -> bool:
    """Whether a guard about one size holds wherever those `before` do that are about it."""
    about = [other for other in before if other.free_symbols == guard.free_symbols]
    if not about or len(guard.free_symbols) != 1:
        return False
    [symbol] = guard.free_symbols
    low, high = ranges[symbol]  # type: ignore[index]
    near = range(max(low, hints[symbol] - _NEAR), hints[symbol] + _NEAR)  # type: ignore[index]
    sizes = (size for size in (*near, *_FAR) if low <= size <= (high or size))
    return all(hold([guard], {symbol: size}) for size in sizes if hold(about, {symbol: size}))


def guard_text(guard: sympy.Basic) -> str:
    """A condition as Python writes it: `samples//32 + 1 == 51`."""
    if isinstance(guard, Relational):
        left, right = (str(side) for side in guard.args)
        if isinstance(guard.lhs, (sympy.Mod, Mod)) and guard.rhs == 0:
            left = " % ".join(str(side) if side.is_Atom else f"({side})" for side in guard.lhs.args)
        return f"{left} {guard.rel_op} {right}"  # type: ignore[attr-defined]
    return str(guard)
