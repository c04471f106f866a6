"""Guards: conditions on the sizes under which the recording computes what the model does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from math import lcm
from typing import Any, TypeAlias

import sympy
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import FloorDiv, Max, Min, Mod

from ir.capture.sizes.questions import Question
from ir.sizes import hold

_NUMBERS, _LARGEST = 4, 1 << 20  # of a condition that are looked at
_OTHERS = (1, 2, 5, 64, 1000)  # values of others beside a size whose range is looked for
_BEYOND = 100  # sizes behind the end of a range that are looked at for gaps
Range: TypeAlias = tuple[int, int | None]
_SAMPLES = (2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 31, 64, 100, 1000, 4096)


def shape_env_of(program: ExportedProgram) -> ShapeEnv | None:
    """torch's record of the sizes of a program; None where it has no tensor."""
    values = (n.meta.get("val") for n in program.graph.nodes)
    return next((v.fake_mode.shape_env for v in values if hasattr(v, "fake_mode")), None)


def read_guards(
    program: ExportedProgram,
    rename: Mapping[sympy.Symbol, sympy.Basic],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
    questions: Sequence[Question],
) -> tuple[sympy.Basic, ...]:
    """Conditions on the sizes, `Eq(Mod(height, 8), 0)`, besides their ranges.

    These are the equations that torch found and the answers that the model's own code was given.  Of torch's
    inequalities, those of remainders by a number count, and of two sums of sizes, as a slice asks whether it ends
    before its operand does: torch assumes each size to be `!= 1`, for views it asks whether one size divides another,
    whatever the answer, for strides it compares products, and the ranges have the others.
    """
    counting = conditions_that_count(program, rename, set(ranges))
    found = _simplified(tuple(g for g in counting if isinstance(g, sympy.Eq)))
    for guard in (g for g in counting if not isinstance(g, sympy.Eq)):
        if not always_true(guard, ranges) and not implied(guard, found, ranges):
            found = (*found, guard)
    asked = dict.fromkeys(q.assumed for q in questions if not always_true(q.assumed, ranges))
    return (*found, *(condition for condition in asked if not implied(condition, found, ranges)))


def conditions_that_count(
    program: ExportedProgram, rename: Mapping[sympy.Symbol, sympy.Basic], symbols: set[sympy.Symbol]
) -> tuple[sympy.Basic, ...]:
    """Conditions on `symbols` that torch found and that must hold, equations first; not its assumptions of layouts."""
    env = shape_env_of(program)
    known = dict.fromkeys(plain(guard.expr.xreplace(rename)) for guard in (env.guards if env is not None else ()))
    about = [guard for guard in known if _is_about(guard, symbols)]
    equations = (guard for guard in about if isinstance(guard, sympy.Eq))
    return tuple(dict.fromkeys((*equations, *filter(_is_of_remainder, about), *filter(_is_of_sums, about))))


def least_that_fits(symbol: sympy.Symbol, found: int, conditions: Sequence[sympy.Basic]) -> int:
    """The least size of a range that begins at `found` for torch, which also takes quotients of sizes to be above 1.

    It is the largest from which on a condition holds throughout, for some values of other sizes in it; those with gaps
    stay conditions.
    """
    least = 1
    for condition in (condition for condition in conditions if symbol in condition.free_symbols and found > 1):
        others = sorted(condition.free_symbols - {symbol}, key=str)
        points = [dict(zip(others, point, strict=True)) for point in product(_OTHERS, repeat=len(others))]
        sizes = range(1, found + _BEYOND)
        fits = [any(hold([condition], {symbol: size, **point}) for point in points) for size in sizes]
        begin = len(fits) - fits[::-1].index(False) + 1 if False in fits else 1
        least = max(least, begin) if begin <= found else least
    return least


def divisors_in(conditions: Iterable[sympy.Basic]) -> set[int]:
    """The numbers, from 2 on, by which conditions divide."""
    parts = (part for condition in conditions for part in condition.atoms(FloorDiv, Mod))
    return {int(part.args[1]) for part in parts if part.args[1].is_Integer and part.args[1] > 1}  # type: ignore[operator]


def plain(guard: sympy.Basic) -> sympy.Basic:
    """A guard in which sympy knows which of two sizes is the smaller: `Min(seq, 8*seq) == seq` is true.

    An order of two sums is written without a sign before the first size: `seq <= batch` for `-batch >= -seq`.
    """
    plain = guard.replace(Min, sympy.Min).replace(Max, sympy.Max)
    return plain.canonical if _is_of_sums(plain) else plain  # type: ignore[no-any-return]


def _is_of_remainder(guard: sympy.Basic) -> bool:
    """Whether it is an inequality of remainders, each by a number."""
    remainders = guard.atoms(Mod)
    return bool(remainders) and not isinstance(guard, sympy.Eq) and all(r.args[1].is_number for r in remainders)


def _is_of_sums(guard: sympy.Basic) -> bool:
    """Whether it is an order of two sums of sizes, without products of these, and not that one is 2 or more."""
    if not isinstance(guard, (sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge)):
        return False
    products = (sum(not factor.is_number for factor in product.args) > 1 for product in guard.atoms(sympy.Mul))
    return not any(products) and not guard.atoms(sympy.Pow) and not _is_above_one(guard)


def _is_above_one(guard: Any) -> bool:
    """Whether an order says that a size is 2 or more: `size > 1`, `2 <= size`, or `8*size > 8` of a part of a view."""
    if isinstance(guard, (sympy.Le, sympy.Ge)):
        return bool({guard.lhs, guard.rhs} & {2, -2})
    number, other = (guard.lhs, guard.rhs) if guard.lhs.is_Integer else (guard.rhs, guard.lhs)
    factor = abs(other.as_coeff_Mul()[0])
    return bool(number.is_Integer and (abs(number) == 1 or (abs(number) > 1 and factor == abs(number))))


def _is_about(guard: sympy.Basic, symbols: set[sympy.Symbol]) -> bool:
    return bool(guard.free_symbols) and guard.free_symbols <= symbols


def always_true(condition: sympy.Basic, ranges: Mapping[sympy.Symbol, tuple[int, int | None]]) -> bool:
    """Whether a condition holds at every sampled size in the ranges, from 2 on where it is about one."""
    return all(hold((condition,), sizes) for sizes in _sample(condition, ranges))


def implied(
    condition: sympy.Basic,
    guards: Sequence[sympy.Basic],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
) -> bool:
    """Whether a condition holds at every sampled size at which those of `guards` do that are about the same sizes."""
    about = [guard for guard in guards if guard.free_symbols <= condition.free_symbols]
    return bool(about) and all(hold((condition,), s) for s in _sample(condition, ranges) if hold(about, s))


def _sample(
    condition: sympy.Basic, ranges: Mapping[sympy.Symbol, tuple[int, int | None]]
) -> Iterator[dict[sympy.Basic, int]]:
    symbols = sorted(condition.free_symbols, key=str)
    ends = [ranges[s] for s in symbols]  # type: ignore[index]
    least = 2 if len(symbols) == 1 else 1
    samples = sorted({*_SAMPLES, *_critical(condition)})
    sizes = [[n for n in (low, *samples) if max(low, least) <= n <= (high or n)] or [low] for low, high in ends]
    for point in product(*(choice if len(symbols) < 3 else choice[::4] for choice in sizes)):
        yield dict(zip(symbols, point, strict=True))


def _critical(condition: sympy.Basic) -> Iterator[int]:
    """Sizes at which a condition with these numbers may change: the 11 of `8*batch == 88` or of `batch + 3 == 14`."""
    numbers = [n for n in sorted(abs(int(n)) for n in condition.atoms(sympy.Integer)) if 1 < n <= _LARGEST]
    for number in numbers[:_NUMBERS]:
        yield from sympy.divisors(number)
    if len(condition.free_symbols) == 1:
        for a, b in product(numbers[:_NUMBERS], repeat=2):
            yield from (n + by for n in (a, a + b, abs(a - b), a * b) for by in (-1, 0, 1))


def _simplified(guards: tuple[sympy.Basic, ...]) -> tuple[sympy.Basic, ...]:
    """Equations such as `8*b*s == 16*b*(s//2)` as `s % 2 == 0`, where all together are equivalent to that."""
    divisors: dict[sympy.Basic, int] = {}
    for size, divisor in (floor.args for guard in guards for floor in guard.atoms(FloorDiv)):
        if isinstance(size, sympy.Symbol) and isinstance(divisor, sympy.Integer):
            divisors[size] = lcm(divisors.get(size, 1), int(divisor))
    divisors = dict(sorted(divisors.items(), key=str))
    whole = {size: k * sympy.Symbol(f"{size}_by_{k}", integer=True, positive=True) for size, k in divisors.items()}
    for size, k in divisors.items():
        others = {s: 840 * divisors.get(s, 1) for guard in guards for s in guard.free_symbols}
        if any(hold(guards, {**others, size: n * k + rest}) for n in (1, 2, 7) for rest in range(1, k)):
            return guards  # more sizes fit than the multiples
        if not all(hold(guards, {**others, size: n * k}) for n in (1, 2, 7)):
            return guards  # or fewer
    multiples = tuple(sympy.Eq(sympy.Mod(size, k), 0) for size, k in divisors.items())
    return (*multiples, *(guard for guard in guards if guard.subs(whole.items()) != sympy.true))  # type: ignore[arg-type]
