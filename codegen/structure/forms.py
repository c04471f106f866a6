"""What makes two regions equal, so that one class can stand for both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
from torch.utils._pytree import tree_flatten

from codegen.structure.program import Update, inside, operands, results
from codegen.structure.regions import Leaf, Region
from ir.graph import Call, Graph, Value, dims, is_whole, opaque_of


@dataclass(frozen=True)
class Border:
    """What a region reads from outside and what is read of it, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def skeleton(leaf: Leaf, sizes: Mapping[sympy.Symbol, sympy.Basic] | None = None) -> tuple[Any, ...]:
    """An operator and its arguments without the values, with other `sizes`."""
    if isinstance(leaf, Update):
        return ("update",)
    if is_whole(leaf):
        opaque = opaque_of(leaf)
        return repr(opaque.recipe), repr(opaque.arguments), repr(opaque.returns)
    leaves, spec = tree_flatten((leaf.args, dict(leaf.kwargs)))
    if sizes:
        leaves = [x.xreplace(dict(sizes)) if isinstance(x, sympy.Basic) else x for x in leaves]
    literals = tuple(_VALUE if isinstance(x, Value) else (type(x), x if x == x else "nan") for x in leaves)
    return leaf.op, literals, spec, len(leaf.results)


_VALUE = "value"


class Forms:
    """Numbers regions by their form: equal operators, wiring, types and relative names of what they store."""

    def __init__(self, graph: Graph, fqns: Mapping[Value, str]) -> None:
        self.fqns = fqns
        self._last: dict[Value, int] = {}
        self._at: dict[Leaf, int] = {}
        self._skeletons: dict[Any, int] = {}
        self._numbers: dict[Any, int] = {}
        self._ids: dict[Leaf, int] = {}
        self._kept = set(graph.kept) - {v for _, v in graph.updates}
        self._border: dict[Region, Border] = {}

    def number(self, root: Region) -> None:
        """Learn where values are read last."""
        for i, leaf in enumerate(root.leaves):
            self._at[leaf] = i
            self._ids[leaf] = self._skeletons.setdefault(skeleton(leaf), len(self._skeletons))
            self._last |= dict.fromkeys(operands(leaf), i)

    def border(self, region: Region) -> Border:
        if region not in self._border:
            made = {v for leaf in region.leaves for v in results(leaf)}
            read = dict.fromkeys(v for leaf in region.leaves for v in operands(leaf))
            end = self._at[region.leaves[-1]]
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
        """What a region reads or changes of what its module stores."""
        states = (leaf.state for leaf in region.leaves if isinstance(leaf, Update))
        return {v for leaf in region.leaves for v in operands(leaf) if self.holds(region.path, v)} | set(states)

    def form(self, region: Region) -> int:
        """Equal for regions that one class can stand for."""
        inputs = self.border(region).inputs
        sizes = _sizes(region, inputs)
        given = {v: ("in", i, _shown(v, sizes)) for i, v in enumerate(inputs)}
        return self._number(region, given, [self._literal(leaf, sizes) for leaf in region.leaves])

    def outline(self, region: Region) -> int:
        """Equal for regions that may differ in which of their arguments and sizes are the same."""
        given = {v: ("in", v.type.dtype, len(v.type.shape)) for v in self.border(region).inputs}
        return self._number(
            region, given, [self._literal(leaf, dict.fromkeys(_symbols(leaf), _SIZE)) for leaf in region.leaves]
        )

    def _number(self, region: Region, given: Mapping[Value, Any], literals: Sequence[int]) -> int:
        known = dict(given)
        rows: list[Any] = []
        for at, (leaf, literal) in enumerate(zip(region.leaves, literals, strict=True)):
            for value in operands(leaf) + ((leaf.state,) if isinstance(leaf, Update) else ()):
                if value not in known:
                    known[value] = self._stored(region.path, value)
            module = leaf.where.module if isinstance(leaf, Call) else region.path
            relative = module[len(region.path) :] if inside(region.path, f"{module}.") else module
            rows.append((literal, tuple(known[v] for v in operands(leaf)), relative))
            if isinstance(leaf, Update):
                rows.append(known[leaf.state])
            known |= {v: (at, i) for i, v in enumerate(results(leaf))}
        rows.append(tuple(known[v] for v in self.border(region).outputs))
        return self._numbers.setdefault(tuple(rows), len(self._numbers))

    def _literal(self, leaf: Leaf, sizes: Mapping[sympy.Symbol, sympy.Symbol]) -> int:
        """The number of an operator with its arguments, where sizes go by where they are read off."""
        if not isinstance(leaf, Call) or all(sizes.get(s) == s for s in leaf.symbols):
            return self._ids[leaf]
        return self._skeletons.setdefault(skeleton(leaf, sizes), len(self._skeletons))

    def arguments(self, of: Region, to: Region) -> tuple[int, ...] | None:
        """What a region gives to the class of one with the same outline, as places in its inputs; None if it cannot."""
        given, own = self.border(to).inputs, self.border(of).inputs
        place: dict[Value, int] = {}
        for a, b in zip(to.leaves, of.leaves, strict=True):
            for value, stands_for in zip(operands(a), operands(b), strict=True):
                if value in given and place.setdefault(value, own.index(stands_for)) != own.index(stands_for):
                    return None
        places = tuple(place[value] for value in given)
        sizes = {s: own[place[v]].type.shape[d] for s, (v, d) in dims(given).items()}
        named = {s: size for s, size in sizes.items() if isinstance(size, sympy.Basic)}
        equal = all(skeleton(a, named) == skeleton(b) for a, b in zip(to.leaves, of.leaves, strict=True))
        return places if equal else None

    def _stored(self, path: str, value: Value) -> tuple[Any, ...]:
        return (self.fqns[value][len(path) :], type(value), getattr(value, "buffer", False), value.type)


_SIZE = sympy.Symbol("size", integer=True, positive=True)


def _symbols(leaf: Leaf) -> Iterable[sympy.Symbol]:
    return leaf.symbols if isinstance(leaf, Call) else ()


def made_in_order(region: Region) -> Iterator[Value]:
    for leaf in region.leaves:
        yield from results(leaf)


def _kind(value: Value) -> tuple[Any, ...]:
    """What the code of a class depends on in the type of what it is given: all but the numbers."""
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
    """What the code of a class depends on in the type of what it is given: the places of sizes that it reads."""
    return (
        value.type.dtype,
        tuple(sizes.get(d, "any") if isinstance(d, sympy.Symbol) else "any" for d in value.type.shape),
    )
