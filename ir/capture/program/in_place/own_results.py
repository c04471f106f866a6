"""Results in memory of their own: copies of those that may lie in that of an input, a weight, a constant or a state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.utils._pytree import tree_leaves

from ir.analysis.arguments import as_number, operator_arguments
from ir.analysis.borders import Namer
from ir.graph import Call, Graph, Node, Value, is_whole
from ir.operators.facts import Elements, aten, is_composite, rearrangement
from ir.operators.higher_order import is_higher_order
from ir.sizes import at


def with_own_results(graph: Graph) -> Graph:
    """The graph with a copy of each output that may share the memory of a leaf.

    A caller who changes a result in place then changes nothing of the model's, nor his own input.
    """
    lent = _lent(graph)
    namer = Namer(graph.names)
    copies = {v: Value(namer(f"{v.name}_copy"), v.type) for v in dict.fromkeys(graph.outputs) if v in lent}
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(node)
        nodes += (_copied(v, copies[v], node) for v in node.results if v in copies)
    return replace(graph, nodes=tuple(nodes), outputs=tuple(copies.get(v, v) for v in graph.outputs))


def copy_of(value: Value, result: Value, **fields: object) -> Call:
    """The call that copies a value."""
    return Call(op=aten.clone.default, args=(value,), results=(result,), **fields)  # type: ignore[arg-type]


def alias_of(value: Value, result: Value) -> Call:
    """The call that gives a value another name."""
    return Call(op=aten.alias.default, args=(value,), results=(result,))


def _copied(value: Value, result: Value, maker: Node) -> Call:
    inside = isinstance(maker, Call) and is_whole(maker)  # a module that is kept whole has no operators
    return copy_of(value, result, where=maker.where.outside if inside else maker.where)


def _lent(graph: Graph) -> set[Value]:
    """The values that may lie in the memory of a leaf."""
    found: set[Value] = set(graph.leaves)
    for node in graph.nodes:
        if not found.isdisjoint(_sharing(node, graph, found)):
            found.update(node.results)
    return found


def _sharing(node: Node, graph: Graph, lent: set[Value]) -> Iterable[Value]:
    """The operands whose memory the results may share; only those in `lent` matter."""
    if not isinstance(node, Call):
        return node.operands
    operands = [v for v in node.operands if v in lent]
    if not operands or is_whole(node):  # nobody knows what is inside
        return operands
    if is_higher_order(node):  # torch exports no function that returns what it is given
        return ()
    if (moves := rearrangement(node.op)) is not None:
        copies = moves.elements is Elements.CAST and _copies(node)
        return node.operands[:1] if moves.may_alias and not copies else ()
    if any(r.alias_info is not None for r in node.op._schema.returns):
        return operands
    return operands if is_composite(node.op) and _shares_on_meta(node, graph) else ()


def _copies(cast: Call) -> bool:
    """Whether a cast is one to another dtype, or is told to copy."""
    return bool(cast.arguments.get("copy")) or cast.results[0].type.dtype is not cast.operands[0].type.dtype


def _shares_on_meta(call: Call, graph: Graph) -> bool:
    """Whether a result shares an operand's memory, from a run without data; True where there can be none."""
    sizes = graph.traced_sizes
    operands = {
        v: torch.empty([at(d, sizes) for d in v.type.shape], dtype=v.type.dtype, device="meta") for v in call.operands
    }
    args, kwargs = operator_arguments(call, operands.__getitem__, lambda e: as_number(e, sizes), torch.device("meta"))
    try:
        with torch.no_grad():
            out = call.op(*args, **kwargs)
    except Exception:  # an operator that needs values
        return True
    memory = {_memory(t) for t in operands.values()}
    return any(_memory(t) in memory for t in tree_leaves(out) if isinstance(t, torch.Tensor))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
