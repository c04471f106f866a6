"""torch's size symbols -> ours, which the user named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from ir.capture.sizes.allowed import allowed_values, guard_text
from ir.capture.sizes.dynamic import FixedSizes, Marks
from ir.capture.sizes.guards import (
    Range,
    conditions_that_count,
    divisors_in,
    least_that_fits,
    plain,
    read_guards,
    shape_env_of,
)
from ir.capture.sizes.questions import Question
from ir.sizes import Dim, hold


@dataclass(frozen=True)
class NamedSizes:
    """The sizes that may change: their symbols, example values, ranges, guards, and the questions about them."""

    rename: Mapping[sympy.Symbol, sympy.Basic]
    hints: Mapping[sympy.Symbol, int]
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]]
    guards: tuple[sympy.Basic, ...]
    questions: tuple[Question, ...]  # of the model's own code, over our symbols

    def read(self, value: Any) -> Dim | None:
        """A size of torch as a number or an expression; None if it depends on the values of a tensor."""
        if not isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return value
        expr = value.node.expr.xreplace(self.rename)
        if not expr.free_symbols <= set(self.hints):
            return None
        if expr.free_symbols:
            return expr
        as_python = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}
        return as_python[type(value)](expr)

    def with_numbers(self, given: Sequence[tuple[Any, str]]) -> NamedSizes:
        """These sizes and, by their names, numbers that a function is given: the counter of a loop."""
        numbers = {
            value.node.expr: sympy.Symbol(name, integer=True)
            for value, name in given
            if isinstance(value, torch.SymInt) and self.read(value) is None
        }
        hints = {**self.hints, **dict.fromkeys(numbers.values(), 1)}
        return replace(self, rename={**self.rename, **numbers}, hints=hints)


def read_sizes(
    program: ExportedProgram,
    tensors: Sequence[torch.Tensor],
    marks: Marks,
    questions: Sequence[Question],
    input_names: Sequence[str],
) -> NamedSizes:
    """Name the symbols of the exported inputs as the user did.

    Raises FixedSizes for a marked size that the model fixes.
    """
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    specs = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    named: dict[sympy.Symbol, sympy.Symbol] = {}
    hints: dict[sympy.Symbol, int] = {}
    asked_for, found = dict[sympy.Symbol, Range](), dict[sympy.Symbol, Range]()
    for i, (spec, tensor, dims) in enumerate(zip(specs, tensors, marks, strict=True)):
        shape = placeholders[spec.arg.name].meta["val"].shape  # type: ignore[union-attr]
        for dim, mark in dims.items():
            if not isinstance(shape[dim], torch.SymInt):
                place = f"`{mark.name}` (dimension {dim} of `{input_names[i]}`)"
                raise FixedSizes({(i, dim): f"{place} cannot be dynamic: the model fixes it at {shape[dim]}"})
            expr = shape[dim].node.expr
            if not isinstance(expr, sympy.Symbol):
                continue  # a size that follows from another: 2*seq
            symbol = named.setdefault(expr, sympy.Symbol(mark.name, integer=True, positive=True))
            hints.setdefault(symbol, tensor.shape[dim])
            asked_for[symbol] = _intersect(asked_for.get(symbol, (1, None)), (mark.min, mark.max))
            found[symbol] = _intersect(found.get(symbol, (1, None)), _range(program.range_constraints.get(expr)))
    rename = {**named, **dict(_equal_to(named, shape_env_of(program)))}
    counting = conditions_that_count(program, rename, set(hints))
    ranges = {
        s: _intersect(bounds, (least_that_fits(s, found[s][0], counting), found[s][1]))
        for s, bounds in asked_for.items()
    }
    asked = tuple(replace(q, asked=q.asked.xreplace(rename)) for q in questions if q.direct)
    asked = tuple(q for q in asked if q.asked.free_symbols and q.asked.free_symbols <= set(hints))
    guards = read_guards(program, rename, ranges, asked)
    _require_several_values(guards, ranges, hints, tensors, marks, asked)
    return NamedSizes(rename, hints, ranges, guards, asked)


def _equal_to(
    rename: Mapping[sympy.Symbol, sympy.Symbol], env: ShapeEnv | None
) -> Iterator[tuple[sympy.Symbol, sympy.Basic]]:
    """Names for symbols that torch found to be equal to those in `rename`: questions were asked about both before."""
    if env is None:
        return
    for symbol in env.replacements:
        found = env.replace(symbol)
        if symbol not in rename and found.free_symbols <= rename.keys():
            yield symbol, found.xreplace(rename)


def _require_several_values(
    guards: Sequence[sympy.Basic],
    ranges: Mapping[sympy.Symbol, tuple[int, int | None]],
    hints: Mapping[sympy.Symbol, int],
    tensors: Sequence[torch.Tensor],
    marks: Marks,
    questions: Sequence[Question],
) -> None:
    """Raise FixedSizes for a size of which guards leave the example's value alone."""
    for symbol, bounds in ranges.items():
        about = [guard for guard in guards if guard.free_symbols == {symbol}]
        if about and hold(about, hints) and allowed_values(symbol, about, bounds, hints[symbol]).is_single:
            asked = next((q.at for q in questions if plain(q.assumed) in map(plain, about)), "")
            reason = f"the model works for {hints[symbol]} alone, as {guard_text(about[0])}{asked}"
            raise FixedSizes(
                {
                    (i, dim): f"`{mark.name}` cannot be dynamic: {reason}"
                    for i, dims in enumerate(marks)
                    for dim, mark in dims.items()
                    if mark.name == str(symbol) and tensors[i].shape[dim] == hints[symbol]
                },
                divisors=divisors_in(about),
            )


def _range(found: Any) -> tuple[int, int | None]:
    """torch's value range, from 1 on where torch starts at 2, as it does for any size."""
    if found is None:
        return 1, None
    low = int(found.lower) if found.lower.is_number and int(found.lower) > 2 else 1
    return low, int(found.upper) if found.upper.is_Integer and found.upper < 2**31 else None


def _intersect(*ranges: tuple[int, int | None]) -> tuple[int, int | None]:
    highs = [high for _, high in ranges if high is not None]
    return max(low for low, _ in ranges), min(highs, default=None)
