"""The calls of a stage by the modules that make them: a tree in program order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, TypeAlias, Union

from codegen.structure.program import Update, inside
from ir.analysis.pools import updated_in_place
from ir.graph import Call, Graph

Action: TypeAlias = Call | Update
Item: TypeAlias = Union[Action, "Region"]


@dataclass(frozen=True, eq=False)
class Region:
    """A stretch of the program in which the module `path` runs."""

    path: str
    items: tuple[Item, ...]

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        return tuple(x for i in self.items for x in (i.actions if isinstance(i, Region) else (i,)))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        return tuple(x for x in self.actions if isinstance(x, Call))

    @property
    def inner(self) -> Iterator[Region]:
        """All regions in this one, outermost first."""
        for item in self.items:
            if isinstance(item, Region):
                yield item
                yield from item.inner


def modules_around(call: Call) -> tuple[str, ...]:
    """The modules whose calls are in progress, outermost first."""
    frames = tuple(f.module for f in call.where.frames if f.module)
    return frames or ((call.where.module,) if call.where.module else ())


def regions(graph: Graph) -> Region:
    """The tree of a stage; states are updated at the end of their module, if nothing else reads them."""
    calls = [n for n in graph.nodes if isinstance(n, Call)]
    root = Region("", _nested([(c, modules_around(c)) for c in calls], 0))
    in_place = set(updated_in_place(graph))
    for state, value in graph.updates:
        if state not in in_place:
            root = _with_update(root, Update(state, value), graph)
    return root


def _nested(calls: Sequence[tuple[Call, tuple[str, ...]]], depth: int) -> tuple[Item, ...]:
    items: list[Item] = []
    for path, group in groupby(calls, key=lambda c: c[1][depth] if len(c[1]) > depth else ""):
        if path:
            items.append(Region(path, _nested(list(group), depth + 1)))
        else:
            items += (call for call, _ in group)
    return tuple(items)


def _with_update(region: Region, update: Update, graph: Graph) -> Region:
    """The tree with an update at the end of the innermost region with all readers of the state and of its views."""
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
