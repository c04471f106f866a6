"""Equality of regions, so that one class can stand for several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from torch.utils._pytree import tree_flatten

from codegen.structure.program import Update, inside, operands, results
from codegen.structure.regions import Action, Region
from ir.graph import Call, Graph, Param, State, Value, dims, is_whole, opaque_of


@dataclass(frozen=True)
class Border:
    """The values that a region reads from outside, and those of its own that are read outside, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def skeleton(action: Action, sizes: Mapping[sympy.Symbol, sympy.Basic] | None = None) -> tuple[Any, ...]:
    """A hashable key: an operator and its arguments without the values, with `sizes` replaced."""
    if isinstance(action, Update):
        return ("update",)
    if is_whole(action):
        opaque = opaque_of(action)
        return repr(opaque.recipe), repr(opaque.arguments), repr(opaque.returns)
    leaves, spec = tree_flatten((action.args, dict(action.kwargs)))
    if sizes:
        leaves = [x.xreplace(dict(sizes)) if isinstance(x, sympy.Basic) else x for x in leaves]
    literals = tuple(_VALUE if isinstance(x, Value) else (type(x), x if x == x else "nan") for x in leaves)
    return action.op, literals, spec, len(action.results)


_VALUE = "value"


class Forms:
    """Numbers regions by their form: equal operators, wiring, types and relative names of what they store."""

    def __init__(self, graph: Graph, fqns: Mapping[Value, str]) -> None:
        self.fqns = fqns
        self._last: dict[Value, int] = {}
        self._at: dict[Action, int] = {}
        self._skeletons: dict[Any, int] = {}
        self._numbers: dict[Any, int] = {}
        self._ids: dict[Action, int] = {}
        self._kept = set(graph.kept) - {v for _, v in graph.updates}
        self._border: dict[Region, Border] = {}

    def number(self, root: Region) -> None:
        """Note the order of the actions and where each value is read last."""
        for i, action in enumerate(root.actions):
            self._at[action] = i
            self._ids[action] = self._skeletons.setdefault(skeleton(action), len(self._skeletons))
            self._last |= dict.fromkeys(operands(action), i)

    def of_action(self, action: Action) -> int:
        """A number that is equal for actions that differ in their values alone."""
        return self._ids[action]

    @property
    def skeletons(self) -> tuple[Any, ...]:
        """The operators with their arguments, in the order of their numbers."""
        return tuple(self._skeletons)

    def border(self, region: Region) -> Border:
        if region not in self._border:
            made = {v for action in region.actions for v in results(action)}
            read = dict.fromkeys(v for action in region.actions for v in operands(action))
            end = self._at[region.actions[-1]]
            inputs = tuple(v for v in read if v not in made and not self.holds(region.path, v))
            outputs = [v for v in made_in_order(region) if self._last.get(v, -1) > end or v in self._kept]
            if len(outputs) > 1 and inputs and _kind(outputs[-1]) == _kind(inputs[0]):
                outputs = [outputs[-1], *outputs[:-1]]  # what flows on comes first
            self._border[region] = Border(inputs, tuple(outputs))
        return self._border[region]

    def holds(self, path: str, value: Value) -> bool:
        """Whether a module stores a value."""
        return value in self.fqns and inside(path, self.fqns[value])

    def stored_by(self, region: Region) -> set[Value]:
        """The tensors of its module that a region reads or updates."""
        states = (action.state for action in region.actions if isinstance(action, Update))
        return {v for action in region.actions for v in operands(action) if self.holds(region.path, v)} | set(states)

    def form(self, region: Region) -> int:
        """A number that is equal for regions that one class can stand for."""
        inputs = self.border(region).inputs
        sizes = _sizes(region, inputs)
        given = {v: ("in", i, _shown(v, sizes)) for i, v in enumerate(inputs)}
        return self._number(region, given, [self._literal(action, sizes) for action in region.actions])

    def outline(self, region: Region) -> int:
        """A number that is equal for regions that may differ in which of their arguments and sizes are the same."""
        given = {v: ("in", v.type.dtype, len(v.type.shape)) for v in self.border(region).inputs}
        return self._number(
            region, given, [self._literal(action, dict.fromkeys(_symbols(action), _SIZE)) for action in region.actions]
        )

    def _number(self, region: Region, given: Mapping[Value, Any], literals: Sequence[int]) -> int:
        known = dict(given)
        rows: list[Any] = []
        for at, (action, literal) in enumerate(zip(region.actions, literals, strict=True)):
            for value in operands(action) + ((action.state,) if isinstance(action, Update) else ()):
                if value not in known:
                    known[value] = self._stored(region.path, value)
            module = action.where.module if isinstance(action, Call) else region.path
            relative = module[len(region.path) :] if inside(region.path, f"{module}.") else module
            rows.append((literal, tuple(known[v] for v in operands(action)), relative))
            if isinstance(action, Update):
                rows.append(known[action.state])
            known |= {v: (at, i) for i, v in enumerate(results(action))}
        rows.append(tuple(known[v] for v in self.border(region).outputs))
        return self._numbers.setdefault(tuple(rows), len(self._numbers))

    def _literal(self, action: Action, sizes: Mapping[sympy.Symbol, sympy.Symbol]) -> int:
        """The number of an operator with its arguments, with sizes named by the place of the shape that has them."""
        if not isinstance(action, Call) or all(sizes.get(s) == s for s in action.symbols):
            return self._ids[action]
        return self._skeletons.setdefault(skeleton(action, sizes), len(self._skeletons))

    def arguments(self, of: Region, to: Region) -> tuple[int, ...] | None:
        """The arguments of `of` for the class of `to`, as places in its inputs; None if it cannot be that class."""
        given, own = self.border(to).inputs, self.border(of).inputs
        place: dict[Value, int] = {}
        for a, b in zip(to.actions, of.actions, strict=True):
            for value, stands_for in zip(operands(a), operands(b), strict=True):
                if value in given and place.setdefault(value, own.index(stands_for)) != own.index(stands_for):
                    return None
        places = tuple(place[value] for value in given)
        sizes = {s: own[place[v]].type.shape[d] for s, (v, d) in dims(given).items()}
        named = {s: size for s, size in sizes.items() if isinstance(size, sympy.Basic)}
        equal = all(skeleton(a, named) == skeleton(b) for a, b in zip(to.actions, of.actions, strict=True))
        return places if equal else None

    def _stored(self, path: str, value: Value) -> tuple[Any, ...]:
        match value:
            case Param():
                kind: tuple[Any, ...] = (value.buffer, value.frozen)
            case State():
                kind = (value.rows,)
            case _:
                kind = ()
        return (self.fqns[value][len(path) :], type(value), kind, value.type)


_SIZE = sympy.Symbol("size", integer=True, positive=True)


def _symbols(action: Action) -> Iterable[sympy.Symbol]:
    return action.symbols if isinstance(action, Call) else ()


def made_in_order(region: Region) -> Iterator[Value]:
    """The results of a region's actions."""
    for action in region.actions:
        yield from results(action)


def _kind(value: Value) -> tuple[Any, ...]:
    """The part of a value's type that the code of a class depends on: all but the numbers."""
    return (value.type.dtype, tuple(d if isinstance(d, sympy.Basic) else "n" for d in value.type.shape))


def _sizes(region: Region, inputs: Sequence[Value]) -> dict[sympy.Symbol, sympy.Symbol]:
    """The sizes that a region computes with, numbered by where arguments show them first.

    Their own names stay if some argument shows none of them: it is then told by name.
    """
    used = {s for call in region.calls for s in call.symbols}
    shown = dict.fromkeys(d for v in inputs for d in v.type.shape if isinstance(d, sympy.Symbol) and d in used)
    if len(shown) < len(used):
        return {s: s for s in used}
    return {s: sympy.Symbol(f"size_{i}", integer=True, positive=True) for i, s in enumerate(shown)}


def _shown(value: Value, sizes: Mapping[sympy.Symbol, sympy.Symbol]) -> tuple[Any, ...]:
    """The part of an input's type that the code of a class depends on: the places of sizes that it reads."""
    return (
        value.type.dtype,
        tuple(sizes.get(d, "any") if isinstance(d, sympy.Symbol) else "any" for d in value.type.shape),
    )
