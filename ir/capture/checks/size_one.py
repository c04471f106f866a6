"""Sizes of 1: torch.export assumes every size to be 2 or more; this finds out where that makes a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils._sympy.functions import FloorDiv

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.bind import allowed
from ir.capture.program.no_ops import PRODUCTS, SUMS, keeps_elements
from ir.capture.repeats.expanded import repeats
from ir.capture.sizes.dynamic import Marks
from ir.capture.sizes.questions import Question
from ir.graph import Call, Constant, Graph, State, Value, is_whole, sizes_of
from ir.operators.facts import BY_ADDRESS, rearrangement
from ir.operators.higher_order import higher_order_of, is_higher_order, run_the_same
from ir.sizes import at, bound, hold

_SMALL = range(2, 1025)  # sizes at which a quotient of them may be 1


def may_be_one(graph: Graph) -> list[sympy.Symbol]:
    """The sizes that neither their ranges nor a guard keeps from 1."""
    return [s for s, (low, _) in graph.ranges.items() if low == 1 and hold(_alone(s, graph), {s: 1})]


def _alone(symbol: sympy.Symbol, graph: Graph) -> list[sympy.Basic]:
    return [guard for guard in graph.guards if guard.free_symbols == {symbol}]


def question_about_one(symbol: sympy.Symbol, graph: Graph, questions: Sequence[Question]) -> Question | None:
    """The first question of the model's own code that has another answer where `symbol` is 1."""
    return next((q for q in questions if _different_at_one(q.assumed, symbol, graph)), None)


def reshaped_at_one(symbol: sympy.Symbol, graph: Graph) -> Call | None:
    """The first node of whose results one that is read has another shape where `symbol` is 1: squeeze() drops that.

    Nodes run on tensors without data; those that cannot are passed over.
    """
    return _reshaped_at(graph.traced_sizes | {symbol: 1}, {symbol}, graph)


def quotient_reshaped_at_one(graph: Graph) -> tuple[sympy.Basic, Call] | None:
    """A quotient of sizes, as a number of chunks, that may be 1 where no size is, and the first such node there."""
    shapes = (
        dim for node in graph.nodes for value in node.results for dim in value.type.shape if isinstance(dim, sympy.Expr)
    )
    quotients = sorted({floor for dim in set(shapes) for floor in dim.atoms(FloorDiv)}, key=str)
    for quotient in quotients:
        sizes = next(
            (s for s in _near(quotient, graph) if hold([sympy.Eq(quotient, 1)], s) and allowed(s, graph)), None
        )
        if sizes is not None and (node := _reshaped_at(sizes, quotient.free_symbols, graph)) is not None:
            return quotient, node
    return None


def _near(quotient: sympy.Basic, graph: Graph) -> Iterator[dict[sympy.Symbol, int]]:
    """Sizes of the example with others, from 2 on, for one in a quotient."""
    hints = graph.traced_sizes
    yield from ({**hints, s: size} for s in sorted(quotient.free_symbols & hints.keys(), key=str) for size in _SMALL)


def _reshaped_at(sizes: Mapping[sympy.Symbol, int], symbols: Set[sympy.Basic], graph: Graph) -> Call | None:
    """The first node with operands of `symbols` that makes other shapes at `sizes` than their types say."""
    seen, read = set[str](), {*graph.kept, *graph.users}
    for node in graph.nodes:
        if isinstance(node, Call) and _is_empty_scan(node, sizes):
            return node
        if not isinstance(node, Call) or is_whole(node) or is_higher_order(node) or repeats(node):
            continue
        if not any(symbols & _symbols(v) for v in node.operands):
            continue
        types = tree_map(lambda a: a.type if isinstance(a, Value) else a, (node.args, dict(node.kwargs)))
        text = f"{node.op}{types}"
        if text not in seen and _reshapes(node, sizes, read):
            return node
        seen.add(text)
    return None


def _is_empty_scan(call: Call, sizes: Mapping[sympy.Symbol, int]) -> bool:
    """Whether a call is a scan of no items, which torch has none of."""
    if not is_higher_order(call) or higher_order_of(call).name != "scan":
        return False
    return any(at(dim, sizes) == 0 for value in call.operands for dim in value.type.shape)


def _symbols(value: Value) -> set[sympy.Basic]:
    return {s for dim in value.type.shape if isinstance(dim, sympy.Expr) for s in dim.free_symbols}


def _reshapes(call: Call, sizes: Mapping[sympy.Symbol, int], read: Set[Value]) -> bool:
    """Whether results in `read` have other shapes at `sizes` than their types say; False where that cannot be told."""

    def shape(value: Value) -> list[int]:
        return [at(d, sizes) for d in value.type.shape]

    def empty(value: Value) -> torch.Tensor:
        return torch.empty(shape(value), dtype=value.type.dtype, device="meta")

    try:
        args, kwargs = operator_arguments(call, empty, lambda e: as_number(e, sizes), torch.device("meta"))
        with torch.no_grad():
            out = call.op(*args, **kwargs)
        found = zip(call.results, out if call.unpacks else [out], strict=True)
        return any(isinstance(t, torch.Tensor) and v in read and list(t.shape) != shape(v) for v, t in found)
    except Exception:  # an operator that needs values, or takes no size of 1
        return False


def at_one(
    graph: Graph, symbol: sympy.Symbol, tensors: Sequence[torch.Tensor], marks: Marks
) -> tuple[Mapping[str, int], list[torch.Tensor]]:
    """The values of all sizes where `symbol` is 1, and example tensors of these sizes."""
    narrow = []
    for tensor, dims in zip(tensors, marks, strict=True):
        for dim, mark in dims.items():
            tensor = tensor.narrow(dim, 0, 1) if mark.name == str(symbol) else tensor
        narrow.append(tensor)
    sizes = sizes_of(zip(graph.inputs, narrow, strict=True))
    return {str(s): size for s, size in sizes.items()}, narrow


def same_program(a: Graph, b: Graph) -> bool:
    """Whether two graphs apply the same operators to the same arguments, whatever the layout in memory."""
    a, b = _without_layout(a), _without_layout(b)
    twin: dict[Value, Value] = dict(zip(a.inputs, b.inputs, strict=True))
    named = {value.name: value for value in (*b.params, *b.constants, *b.states)}
    held = (v for v in (*a.params, *a.constants, *a.states) if v.name in named)
    twin |= {v: named[v.name] for v in held if _same_elements(v, named[v.name])}
    if len(a.nodes) != len(b.nodes) or len(a.outputs) != len(b.outputs):
        return False
    read = {*b.kept, *b.users}
    for m, n in zip(a.nodes, b.nodes, strict=True):
        if not (isinstance(m, Call) and isinstance(n, Call)) or m.op != n.op:
            return False
        pairs = zip(m.results, n.results, strict=False)
        differ = len(m.results) != len(n.results) or any(v.type != w.type for v, w in pairs if w in read)
        if differ or not _same_arguments(m, n, twin):
            return False
        twin |= zip(m.results, n.results, strict=True)
    return [twin.get(v) for v in a.kept] == list(b.kept)


def _same_elements(one: Value, other: Value) -> bool:
    """Whether two values hold the same elements, where a graph has them: those of constants and of new state."""
    a, b = (value.data if isinstance(value, (Constant, State)) else None for value in (one, other))
    return a is b or (a is not None and b is not None and a.dtype is b.dtype and torch.equal(a, b))


def _without_layout(graph: Graph) -> Graph:
    """The graph without nodes that keep all elements, as by another layout in memory, or a view of a whole tensor."""
    if any(isinstance(node, Call) and node.op in BY_ADDRESS for node in graph.nodes):
        return graph
    same: dict[Value, Value] = {}
    for node in graph.nodes:
        if isinstance(node, Call) and _says_nothing(node):
            same[node.results[0]] = same.get(node.operands[0], node.operands[0])
    nodes = tuple(n for n in graph.nodes if n.results[0] not in same)
    return replace(graph, nodes=nodes).map_values(lambda v: same.get(v, v))


def _says_nothing(node: Call) -> bool:
    if not node.operands or node.results[0].type != node.operands[0].type:
        return False
    if (moves := rearrangement(node.op)) is not None:
        return moves.is_identity_if_type_stays
    number = node.args[1] if node.op in SUMS | PRODUCTS else None
    return isinstance(number, (int, float)) and keeps_elements(node.op, number, node.results[0].type.dtype)


def without_one(graph: Graph, symbol: sympy.Symbol, place: str) -> Graph:
    """The graph restricted to `symbol` >= 2, with a note that names the line of the model."""
    note = (
        f"`{symbol}` must be 2 or more: where it is 1 the model computes something else (at {place}); for 1, compile "
        f"it with `{symbol}` fixed at 1"
    )
    ranges = {**graph.ranges, symbol: (2, graph.ranges[symbol][1])}
    return replace(graph, ranges=ranges, notes=(*graph.notes, note))


def _different_at_one(assumed: sympy.Basic, symbol: sympy.Symbol, graph: Graph) -> bool:
    return symbol in assumed.free_symbols and bound(assumed, {**graph.hints, symbol: 1}) != sympy.true


def _same_arguments(m: Call, n: Call, twin: Mapping[Value, Value]) -> bool:
    if is_higher_order(m):
        return [twin.get(v) for v in m.operands] == list(n.operands) and run_the_same(m, n)
    ours, theirs = (tree_leaves(dict(node.arguments)) for node in (m, n))
    return len(ours) == len(theirs) and all(map(lambda x, y: _same(x, y, twin), ours, theirs))


def _same(x: Any, y: Any, twin: Mapping[Value, Value]) -> bool:
    if isinstance(x, Value):
        return twin.get(x) is y
    return bool(x == y) or {x, y} == {None, 0}  # the start of a slice
