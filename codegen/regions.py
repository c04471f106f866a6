"""The calls of a stage by the modules that make them: a tree in program order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, TypeAlias

import sympy
from torch.utils._pytree import tree_flatten

from codegen.program import Update, inside, operands, results
from ir.graph import Call, Graph, Value
from ir.opaque import is_whole, opaque_of

Leaf: TypeAlias = Call | Update


@dataclass(frozen=True, eq=False)
class Region:
    """A stretch of the program in which one module runs."""

    path: str
    items: tuple[Leaf | Region, ...]

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        return tuple(x for i in self.items for x in (i.leaves if isinstance(i, Region) else (i,)))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        return tuple(x for x in self.leaves if isinstance(x, Call))

    @property
    def inner(self) -> Iterator[Region]:
        """The regions in this one, outermost first."""
        for item in self.items:
            if isinstance(item, Region):
                yield item
                yield from item.inner


def modules_around(call: Call) -> tuple[str, ...]:
    """The modules that are being called, outermost first."""
    frames = tuple(f.module for f in call.where.frames if f.module)
    return frames or ((call.where.module,) if call.where.module else ())


def regions(graph: Graph) -> Region:
    """The whole stage; states change where their module ends, if nothing else reads them."""
    calls = [n for n in graph.nodes if isinstance(n, Call)]
    root = Region("", _nested([(c, modules_around(c)) for c in calls], 0))
    for state, value in graph.updates:
        root = _with_update(root, Update(state, value), graph)
    return root


def _nested(calls: Sequence[tuple[Call, tuple[str, ...]]], depth: int) -> tuple[Leaf | Region, ...]:
    items: list[Leaf | Region] = []
    for path, group in groupby(calls, key=lambda c: c[1][depth] if len(c[1]) > depth else ""):
        if path:
            items.append(Region(path, _nested(list(group), depth + 1)))
        else:
            items += (call for call, _ in group)
    return tuple(items)


def _with_update(region: Region, update: Update, graph: Graph) -> Region:
    """Put an update at the end of the innermost region that has all that reads the state, or looks into it."""
    touched = {update.state, update.value}
    for node in graph.nodes:  # a view of the state changes with it
        if node.view and not touched.isdisjoint(node.operands):
            touched.update(node.results)
    here = {n for v in touched for n in graph.users.get(v, ())} | {graph.producer.get(update.value)}
    escapes = bool((touched - {update.state, update.value}) & set(graph.outputs))
    return _placed(region, update, here, escapes)


def _placed(region: Region, update: Update, readers: set[Any], escapes: bool) -> Region:
    for i, item in enumerate(region.items):
        if not isinstance(item, Region) or escapes or not inside(item.path, update.state.fqns[0]):
            continue
        if readers <= {*item.calls, None}:
            inner = _placed(item, update, readers, escapes)
            return Region(region.path, (*region.items[:i], inner, *region.items[i + 1 :]))
    return Region(region.path, (*region.items, update))


# ---- what makes two regions equal


@dataclass(frozen=True)
class Border:
    """What a region reads from outside and what is read of it, in order."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def skeleton(leaf: Leaf, sizes: Mapping[sympy.Symbol, sympy.Symbol] | None = None) -> tuple[Any, ...]:
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
        border = self.border(region)
        sizes = _sizes(region, border.inputs)
        known: dict[Value, Any] = {v: ("in", i, _shown(v, sizes)) for i, v in enumerate(border.inputs)}
        rows: list[Any] = []
        for leaf in region.leaves:
            for value in operands(leaf) + ((leaf.state,) if isinstance(leaf, Update) else ()):
                if value not in known:
                    known[value] = self._stored(region.path, value)
            module = leaf.where.module if isinstance(leaf, Call) else region.path
            relative = module[len(region.path) :] if inside(region.path, f"{module}.") else module
            rows.append((self._literal(leaf, sizes), tuple(known[v] for v in operands(leaf)), relative))
            if isinstance(leaf, Update):
                rows.append(known[leaf.state])
            known |= {v: len(known) + i for i, v in enumerate(results(leaf))}
        rows.append(tuple(known[v] for v in border.outputs))
        return self._numbers.setdefault(tuple(rows), len(self._numbers))

    def _literal(self, leaf: Leaf, sizes: Mapping[sympy.Symbol, sympy.Symbol]) -> int:
        """The number of an operator with its arguments, where sizes go by where they are read off."""
        if not isinstance(leaf, Call) or all(sizes.get(s) == s for s in leaf.symbols):
            return self._ids[leaf]
        return self._skeletons.setdefault(skeleton(leaf, sizes), len(self._skeletons))

    def _stored(self, path: str, value: Value) -> tuple[Any, ...]:
        return (self.fqns[value][len(path) :], type(value), getattr(value, "buffer", False), value.type)


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
