"""What the first layer makes for all layers stands before it, where the first layer is then as the others are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from codegen.structure.forms import Forms
from codegen.structure.program import is_random, operands, results
from codegen.structure.regions import Item, Leaf, Region
from ir.graph import Call, Constant, Graph, Param, Value, is_whole


def hoisted(root: Region, graph: Graph, fqns: Mapping[Value, str]) -> tuple[Region, AbstractSet[Value]]:
    """The tree with such values made before their layers, and the weights that are read there.

    T5's first layer makes the position bias that all layers add, of sizes and a weight of its own.  Only what needs
    no input of the layer is moved, and only where that gives the layer the form of another one of its class.
    """
    moved, tried = set[Leaf](), set[str]()
    while found := next(_candidates(root, graph, tried), None):
        layer, shared = found
        tried.add(layer.path)
        here = _needed(layer, shared)
        changed = _without(root, layer.path, here)
        if _is_as_another(changed, layer.path, Forms(graph, fqns), graph):
            root = changed
            moved |= here
    return root, {v for leaf in moved for v in operands(leaf) if v in fqns}


def _candidates(root: Region, graph: Graph, tried: AbstractSet[str]) -> Iterator[tuple[Region, set[Value]]]:
    """Regions of a class that others have too, outermost first, and what they make of weights and sizes for others."""
    free = _free(root)
    at = {leaf: i for i, leaf in enumerate(root.leaves)}
    last = {v: i for leaf, i in at.items() for v in operands(leaf)} | dict.fromkeys(graph.outputs, len(at))
    inner = list(root.inner) if free else []
    classes = {region.path: graph.modules.get(region.path, "") for region in inner}
    count = Counter(classes.values())
    for region in inner:
        if count[classes[region.path]] == 1 or region.path in tried:
            continue
        made = {v for leaf in region.leaves if leaf in free for v in results(leaf)}
        shared = {v for v in made if last.get(v, -1) > at[region.leaves[-1]]}
        if shared and not free.issuperset(region.leaves):
            yield region, shared


def _free(root: Region) -> set[Leaf]:
    """The calls that need nothing but weights and sizes."""
    made = set[Value]()
    found = set[Leaf]()
    for leaf in root.leaves:
        if not isinstance(leaf, Call) or is_whole(leaf) or is_random(leaf):
            continue
        if all(v in made or isinstance(v, (Param, Constant)) for v in leaf.operands):
            made.update(leaf.results)
            found.add(leaf)
    return found


def _needed(layer: Region, values: AbstractSet[Value]) -> set[Leaf]:
    """The calls of a layer that lead to values."""
    wanted, found = set(values), set[Leaf]()
    for leaf in reversed(layer.leaves):
        if not wanted.isdisjoint(results(leaf)):
            wanted.update(operands(leaf))
            found.add(leaf)
    return found


def _without(region: Region, path: str, moved: set[Leaf]) -> Region:
    """The tree with leaves of the region at a path before it."""
    items: list[Item] = []
    for item in region.items:
        if not isinstance(item, Region):
            items.append(item)
        elif item.path == path and not moved.isdisjoint(item.leaves):
            items += [*_taken(item, moved), _left(item, moved)]
        else:
            items.append(_without(item, path, moved))
    return Region(region.path, tuple(items))


def _taken(region: Region, moved: set[Leaf]) -> Iterator[Item]:
    """Leaves, and the regions in which all leaves move."""
    for item in region.items:
        if not isinstance(item, Region):
            yield from (item,) if item in moved else ()
        elif moved.issuperset(item.leaves):
            yield item
        else:
            yield from _taken(item, moved)


def _left(region: Region, moved: set[Leaf]) -> Region:
    kept = (i for i in region.items if not moved.issuperset(i.leaves if isinstance(i, Region) else (i,)))
    return Region(region.path, tuple(_left(i, moved) if isinstance(i, Region) else i for i in kept))


def _is_as_another(root: Region, path: str, forms: Forms, graph: Graph) -> bool:
    """Whether the region at a path has the form of another one of its class."""
    forms.number(root)
    cls = graph.modules.get(path)
    alike = [r for r in root.inner if graph.modules.get(r.path) == cls]
    own = {forms.form(r) for r in alike if r.path == path}
    return not own.isdisjoint(forms.form(r) for r in alike if r.path != path)
