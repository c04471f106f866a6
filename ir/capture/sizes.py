"""torch's size symbols -> ours, named by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._sympy.functions import FloorDiv

from ir.capture.dynamic import Marks
from ir.errors import CaptureError
from ir.graph import Dim


@dataclass(frozen=True)
class Sizes:
    """What capture knows of the sizes that may change."""

    rename: Mapping[sympy.Symbol, sympy.Symbol]
    hints: Mapping[sympy.Symbol, int]
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]]
    guards: tuple[sympy.Basic, ...]

    def read(self, value: Any) -> Dim | None:
        """A size as a number or an expression; None where it depends on the values of a tensor."""
        if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return value
        expr = value.node.expr.xreplace(self.rename)
        if not expr.free_symbols <= set(self.hints):
            return None
        if expr.free_symbols:
            return expr
        return int(expr) if isinstance(value, torch.SymInt) else float(expr)  # type: ignore[return-value]


def read_sizes(program: ExportedProgram, tensors: Sequence[torch.Tensor], marks: Marks) -> Sizes:
    """Name the symbols of the exported inputs as the user did.

    Raises CaptureError for a size that was to change and that the model fixes.
    """
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    rename: dict[sympy.Symbol, sympy.Symbol] = {}
    hints: dict[sympy.Symbol, int] = {}
    ranges: dict[sympy.Symbol, tuple[int, int | None]] = {}
    for spec, tensor, dims in zip(specs, tensors, marks, strict=True):
        shape = placeholders[spec.arg.name].meta["val"].shape  # type: ignore[union-attr]
        for dim, mark in dims.items():
            if not isinstance(shape[dim], torch.SymInt):
                raise CaptureError(
                    f"`{mark.name}` (dimension {dim} of `{spec.arg.name}`) was to be dynamic, but the model fixes it "
                    f"at {shape[dim]}; leave it out of the dynamic shapes"
                )
            expr = shape[dim].node.expr
            if not isinstance(expr, sympy.Symbol):
                continue  # a size that follows from another: 2*seq
            symbol = rename.setdefault(expr, sympy.Symbol(mark.name, integer=True, positive=True))
            hints.setdefault(symbol, tensor.shape[dim])
            ranges[symbol] = _intersect(
                ranges.get(symbol, (1, None)), (mark.min, mark.max), _range(program.range_constraints.get(expr))
            )
    return Sizes(rename, hints, ranges, _guards(program, rename))


def _range(found: Any) -> tuple[int, int | None]:
    """torch's value range.  It prints [2, inf] for any size; a size of 1 runs right all the same."""
    if found is None:
        return 1, None
    low = int(found.lower) if found.lower.is_number and int(found.lower) > 2 else 1
    return low, int(found.upper) if found.upper.is_Integer and found.upper < 2**31 else None


def _intersect(*ranges: tuple[int, int | None]) -> tuple[int, int | None]:
    highs = [high for _, high in ranges if high is not None]
    return max(low for low, _ in ranges), min(highs, default=None)


def _guards(program: ExportedProgram, rename: Mapping[sympy.Symbol, sympy.Symbol]) -> tuple[sympy.Basic, ...]:
    """What the model assumed of the sizes while it was recorded: `Eq(Mod(height, 8), 0)`.

    Inequalities are left to the ranges: torch adds `!= 1` for every size.
    """
    values = (n.meta.get("val") for n in program.graph.nodes)
    env = next((v.fake_mode.shape_env for v in values if hasattr(v, "fake_mode")), None)
    found: dict[sympy.Basic, None] = {}
    for guard in env.guards if env is not None else ():
        expr = guard.expr.xreplace(rename)
        if isinstance(expr, sympy.Eq) and expr.free_symbols and expr.free_symbols <= set(rename.values()):
            found[expr] = None
    return _simplified(tuple(found))


def _simplified(guards: tuple[sympy.Basic, ...]) -> tuple[sympy.Basic, ...]:
    """`8*b*s == 16*b*(s//2)` and its like as `s % 2 == 0`, where that is what they say together."""
    divisors: dict[sympy.Basic, int] = {}
    for size, divisor in (floor.args for guard in guards for floor in guard.atoms(FloorDiv)):
        if isinstance(size, sympy.Symbol) and isinstance(divisor, sympy.Integer):
            divisors[size] = lcm(divisors.get(size, 1), int(divisor))
    divisors = dict(sorted(divisors.items(), key=str))
    whole = {size: k * sympy.Symbol(f"{size}_by_{k}", integer=True, positive=True) for size, k in divisors.items()}
    for size, k in divisors.items():
        others = {s: 840 * divisors.get(s, 1) for guard in guards for s in guard.free_symbols}
        if any(_hold(guards, {**others, size: n * k + rest}) for n in (1, 2, 7) for rest in range(1, k)):
            return guards  # more sizes fit than the multiples
    multiples = tuple(sympy.Eq(sympy.Mod(size, k), 0) for size, k in divisors.items())
    return (*multiples, *(guard for guard in guards if guard.subs(whole.items()) != sympy.true))  # type: ignore[arg-type]


def _hold(guards: tuple[sympy.Basic, ...], sizes: Mapping[sympy.Basic, int]) -> bool:
    try:
        return all(guard.subs(sizes.items()) == sympy.true for guard in guards)  # type: ignore[arg-type]
    except ZeroDivisionError:
        return False
