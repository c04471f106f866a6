"""The difference between two graphs, in a few words, for the report and `-v`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ir.graph import Call, Graph, Node, Transfer
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
    was, now = _by_name(before), _by_name(after)
    both = [(was[name], node) for name, node in now.items() if name in was]
    added = Counter(_meaning(node) for name, node in now.items() if name not in was)
    removed = Counter(_meaning(node) for name, node in was.items() if name not in now)
    new = added - removed
    transfers = new.pop(Transfer, 0)
    yield from _count(new.total(), "operator", "added")
    yield from _count(transfers, "transfer", "added")
    yield from _count((removed - added).total(), "operator", "removed")
    yield from _count((added & removed).total(), "operator", "with a new name")
    yield from _count(sum(_types(a) != _types(b) for a, b in both), "operator", "with new sizes")
    yield from _count(sum(b.view and not a.view for a, b in both), "operator", "known as views")
    yield from _count(sum(a.cost != b.cost for a, b in both), "operator", "with a cost")
    yield from _count(len({b.group for a, b in both if a.group != b.group}), "group", "kept on one device")
    yield from _count(sum(b.cheap and not a.cheap for a, b in both), "operator", "cheap enough to repeat")
    yield from _split(before, after)


def _split(before: Graph, after: Graph) -> Iterator[str]:
    if before.placement != after.placement:
        yield f"{len(after.placement)} stages"
    if before.split.value != after.split.value:
        value, least = format_seconds(after.split.value), format_seconds(after.split.lower_bound)
        yield f"{value} a batch, which no cut brings below {least}"
    if before.split.better != after.split.better:
        yield "another cut better for " + "; ".join(format_sizes(other.sizes) for other in after.split.better)
    if before.split.good_for != after.split.good_for:
        yield "good for " + ", ".join(f"{size} {low} to {high}" for size, (low, high) in after.split.good_for.items())


def _by_name(graph: Graph) -> dict[tuple[int, str], Node]:
    return {(node.program, node.results[0].name): node for node in graph.nodes}


def _meaning(node: Node) -> object:
    """A key that is equal for a node and for the same node under another name."""
    return (node.op, node.where) if isinstance(node, Call) else Transfer


def _types(node: Node) -> tuple[object, ...]:
    return tuple(value.type for value in node.results)


def _count(number: int, what: str, how: str = "") -> Iterator[str]:
    if number:
        yield f"{number} {what}{'s' if number > 1 else ''} {how}".rstrip()
