"""The difference between two graphs, in a few words, for the report and `-v`."""

from __future__ import annotations

from collections.abc import Iterator

from ir.graph import Call, Graph, Node, Transfer, Value
from ir.microbatching import Microbatching
from ir.objects.nested import nested_leaves
from ir.text.call_sizes import format_sizes
from ir.text.units import format_seconds


def contents(graph: Graph) -> str:
    """The number of operators, parameters and states of a graph."""
    held = f"{len(graph.params)} parameters" + (f", {len(graph.states)} states" if graph.states else "")
    return f"{len(graph.nodes)} operators, {held}"


def changes(before: Graph | None, after: Graph) -> str:
    """The effect of a step that turned `before`, None for the first, into `after`."""
    if before is None:
        return contents(after)
    return ", ".join(_changes(before, after)) or "nothing to change"


def _changes(before: Graph, after: Graph) -> Iterator[str]:
    both, added, removed = _matched(before, after)
    yield from _count(sum(isinstance(node, Call) for node in added), "operator", "added")
    yield from _count(sum(isinstance(node, Transfer) for node in added), "transfer", "added")
    yield from _count(len(removed), "operator", "removed")
    yield from _count(sum(_name(a) != _name(b) for a, b in both), "operator", "with a new name")
    yield from _count(sum(_has_new_literals(a, b) for a, b in both), "operator", "with new arguments")
    yield from _count(sum(_types(a) != _types(b) for a, b in both), "operator", "with new sizes")
    yield from _count(sum(b.view and not a.view for a, b in both), "operator", "known as views")
    yield from _count(sum(a.cost != b.cost for a, b in both), "operator", "with a cost")
    yield from _count(len({b.group for a, b in both if a.group != b.group}), "group", "kept on one device")
    yield from _count(len(after.separable - before.separable), "group", "of which copies may be made")
    yield from _count(sum(b.cheap and not a.cheap for a, b in both), "operator", "cheap enough to repeat")
    yield from _microbatching(before, after)
    yield from _split(before, after)


def _matched(before: Graph, after: Graph) -> tuple[list[tuple[Node, Node]], list[Node], list[Node]]:
    """The nodes that both graphs have, but for those that are as they were, those added and those removed.

    A node is known by its operator and its place in the source, as a pass may give its name to another one; of several
    that are alike, by its name, then by its turn.
    """
    if before.nodes is after.nodes:
        return [], [], []
    known = {(node.program, _name(node)): node for node in before.nodes}
    both: list[tuple[Node, Node]] = []
    others: list[Node] = []
    for node in after.nodes:
        named = node.program, _name(node)
        if named in known and _kind(known[named]) == _kind(node):
            both.append((known.pop(named), node))
        else:
            others.append(node)
    left: dict[tuple[object, ...], list[Node]] = {}
    for node in known.values():
        left.setdefault(_kind(node), []).append(node)
    added: list[Node] = []
    for node in others:
        if alike := left.get(_kind(node)):
            both.append((alike.pop(0), node))
        else:
            added.append(node)
    changed = [(was, now) for was, now in both if was is not now]
    return changed, added, [node for nodes in left.values() for node in nodes]


def _kind(node: Node) -> tuple[object, ...]:
    """All that tells a node apart from others but its name."""
    return node.program, node.op if isinstance(node, Call) else Transfer, node.where


def _name(node: Node) -> str:
    return node.results[0].name


def _has_new_literals(before: Node, after: Node) -> bool:
    if before is after or (isinstance(before, Call) and isinstance(after, Call) and _same_arguments(before, after)):
        return False
    return _literals(before) != _literals(after)


def _same_arguments(before: Call, after: Call) -> bool:
    return before.args is after.args and before.kwargs is after.kwargs


def _literals(node: Node) -> list[object]:
    """The arguments of a node, without the names of the values among them."""
    if isinstance(node, Transfer):
        return []
    kwargs = dict(node.kwargs)
    return [*kwargs, *("value" if isinstance(a, Value) else a for a in nested_leaves((node.args, kwargs)))]


def _microbatching(before: Graph, after: Graph) -> Iterator[str]:
    for was, now in zip(_batches(before), _batches(after), strict=True):
        if was != now:
            yield f"a batch may be split along {now.size}" if now.size else f"no batch may be split: {now.reason}"


def _batches(graph: Graph) -> list[Microbatching]:
    return [program.microbatching for program in graph.programs] or [graph.microbatching]


def _split(before: Graph, after: Graph) -> Iterator[str]:
    if before.placement != after.placement:
        yield f"{len(after.placement)} stages"
    if before.split.value != after.split.value:
        value, least = format_seconds(after.split.value), format_seconds(after.split.lower_bound)
        yield f"{after.split.quantity} {value}, which no cut brings below {least}"
    if before.split.better != after.split.better:
        yield "another cut better for " + "; ".join(format_sizes(other.sizes) for other in after.split.better)
    if before.split.good_for != after.split.good_for:
        yield "good for " + ", ".join(f"{size} {low} to {high}" for size, (low, high) in after.split.good_for.items())


def _types(node: Node) -> tuple[object, ...]:
    return tuple(value.type for value in node.results)


def _count(number: int, what: str, how: str = "") -> Iterator[str]:
    if number:
        yield f"{number} {what}{'s' if number > 1 else ''} {how}".rstrip()
