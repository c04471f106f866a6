"""Hoists values that the first layer computes for all layers, so that it becomes like the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from codegen.structure.forms import Forms
from codegen.structure.program import is_random, operands, results
from codegen.structure.regions import Action, Item, Region
from ir.graph import Call, Constant, Graph, Param, Value, is_whole


def hoisted(root: Region, graph: Graph, fqns: Mapping[Value, str]) -> tuple[Region, AbstractSet[Value]]:
    """The tree with such values computed before their layers, and the weights that are read there.

    T5's first layer makes the position bias that all layers add, of sizes and a weight of its own.  Only what needs
    no input of the layer is moved, and only where that gives the layer the form of another one of its class.
    """
    moved, tried = set[Action](), set[str]()
    while found := next(_candidates(root, graph, tried), None):
        layer, shared = found
        tried.add(layer.path)
        here = _needed(layer, shared)
        changed = _without(root, layer.path, here)
        if _is_as_another(changed, layer.path, Forms(graph, fqns), graph):
            root = changed
            moved |= here
    return root, {v for action in moved for v in operands(action) if v in fqns}


def _candidates(root: Region, graph: Graph, tried: AbstractSet[str]) -> Iterator[tuple[Region, set[Value]]]:
    """Regions of a class that others have too, outermost first, and the values that they make for others."""
    free = _free(root)
    at = {action: i for i, action in enumerate(root.actions)}
    last = {v: i for action, i in at.items() for v in operands(action)} | dict.fromkeys(graph.outputs, len(at))
    inner = list(root.inner) if free else []
    classes = {region.path: graph.modules.get(region.path, "") for region in inner}
    count = Counter(classes.values())
    for region in inner:
        if count[classes[region.path]] == 1 or region.path in tried:
            continue
        made = {v for action in region.actions if action in free for v in results(action)}
        shared = {v for v in made if last.get(v, -1) > at[region.actions[-1]]}
        if shared and not free.issuperset(region.actions):
            yield region, shared


def _free(root: Region) -> set[Action]:
    """The calls that depend on weights and sizes alone."""
    made = set[Value]()
    found = set[Action]()
    for action in root.actions:
        if not isinstance(action, Call) or is_whole(action) or is_random(action):
            continue
        if all(v in made or isinstance(v, (Param, Constant)) for v in action.operands):
            made.update(action.results)
            found.add(action)
    return found


def _needed(layer: Region, values: AbstractSet[Value]) -> set[Action]:
    """The calls of a layer that `values` depend on."""
    wanted, found = set(values), set[Action]()
    for action in reversed(layer.actions):
        if not wanted.isdisjoint(results(action)):
            wanted.update(operands(action))
            found.add(action)
    return found


def _without(region: Region, path: str, moved: set[Action]) -> Region:
    """The tree with the actions `moved` before the region at `path`, to which they belong."""
    items: list[Item] = []
    for item in region.items:
        if not isinstance(item, Region):
            items.append(item)
        elif item.path == path and not moved.isdisjoint(item.actions):
            items += [*_taken(item, moved), _left(item, moved)]
        else:
            items.append(_without(item, path, moved))
    return Region(region.path, tuple(items))


def _taken(region: Region, moved: set[Action]) -> Iterator[Item]:
    """The actions that move, and the regions in which all actions do."""
    for item in region.items:
        if not isinstance(item, Region):
            yield from (item,) if item in moved else ()
        elif moved.issuperset(item.actions):
            yield item
        else:
            yield from _taken(item, moved)


def _left(region: Region, moved: set[Action]) -> Region:
    kept = (i for i in region.items if not moved.issuperset(i.actions if isinstance(i, Region) else (i,)))
    return Region(region.path, tuple(_left(i, moved) if isinstance(i, Region) else i for i in kept))


def _is_as_another(root: Region, path: str, forms: Forms, graph: Graph) -> bool:
    """Whether the region at a path has the form of another one of its class."""
    forms.number(root)
    cls = graph.modules.get(path)
    alike = [r for r in root.inner if graph.modules.get(r.path) == cls]
    own = {forms.form(r) for r in alike if r.path == path}
    return not own.isdisjoint(forms.form(r) for r in alike if r.path != path)
