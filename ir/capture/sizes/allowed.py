"""The values of a size that guards leave, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, product, takewhile

import sympy
from sympy.core.relational import Relational

from ir.capture.sizes.guards import always_true, plain
from ir.capture.sizes.questions import Question
from ir.sizes import hold
from ir.text.expressions import printed

_STEPS = 2048  # values looked at on each side of the example's
_NEAR, _FAR = 64, range(960, 1080)  # values at which one guard may follow from others
_LOOKED_AT = 100  # points at which a guard about several sizes may
_ENOUGH = 3  # such points: fewer, where those before leave few, say nothing
_READ = 90  # characters of a condition that a note spells out


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

    There is none on a guard that all sizes meet, or all that those before it leave; a long one is not spelled out.
    """
    for i, guard in enumerate(guards):
        symbols: list[sympy.Symbol] = sorted(guard.free_symbols, key=str)  # type: ignore[arg-type]
        if _is_met(guard, guards[:i], symbols, ranges, hints) or (symbols[1:] and always_true(guard, ranges)):
            continue
        text, place = guard_text(guard), next((q.at for q in questions if plain(q.assumed) == plain(guard)), "")
        asks = f": the stages are right where {text}" if len(text) <= _READ else ""
        left = {
            s: allowed_values(s, [guard.subs({t: hints[t] for t in symbols if t != s})], ranges[s], hints[s])
            for s in symbols
        }
        said = [f"`{s}` must be {values}" for s, values in left.items() if (values.least, values.most) != ranges[s]]
        if not symbols[1:]:
            yield from (f"{one}{asks}{place}" for one in said)
        elif asks:
            yield f"{asks[2:]}{place}: other {_listed(symbols)} are refused"
        else:
            more = f": with the others as in the example, {' and '.join(said)}" if said else ""
            yield f"the stages are right for some {_listed(symbols)} alone{place}{more}"


def _listed(symbols: Sequence[sympy.Symbol]) -> str:
    return " and ".join(f"`{symbol}`" for symbol in symbols)


def _is_met(
    guard: sympy.Basic,
    before: Sequence[sympy.Basic],
    symbols: Sequence[sympy.Symbol],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
    hints: Mapping[sympy.Symbol, int],
) -> bool:
    """Whether a guard holds at all sizes near the example's, and some far ones, where those `before` do."""
    about = [other for other in before if other.free_symbols <= guard.free_symbols]
    if not about:
        return False
    values = [_sizes(symbol, about, ranges[symbol], hints[symbol]) for symbol in symbols]
    if symbols[1:]:
        each = int(_LOOKED_AT ** (1 / len(symbols)))
        values = [found[:: max(1, len(found) // each)] for found in values]
    every = (dict(zip(symbols, point, strict=True)) for point in product(*values))
    points = [point for point in every if hold(about, point)]
    return len(points) >= _ENOUGH and all(hold([guard], point) for point in points)


def _sizes(
    symbol: sympy.Symbol, guards: Sequence[sympy.Basic], bounds: tuple[int, int | None], example: int
) -> list[int]:
    """Sizes near the example's, and some far ones, at which the guards that are about this one alone hold."""
    low, high = bounds
    alone = [guard for guard in guards if guard.free_symbols == {symbol}]
    near = (*range(max(low, example - _NEAR), example + _NEAR), *_FAR)
    return [size for size in near if low <= size <= (high or size) and hold(alone, {symbol: size})]


def guard_text(guard: sympy.Basic) -> str:
    """A condition as Python writes it: `samples // 32 + 1 == 51`."""
    if isinstance(guard, Relational):
        return f"{printed(guard.lhs)} {guard.rel_op} {printed(guard.rhs)}"  # type: ignore[attr-defined]
    return printed(guard)
