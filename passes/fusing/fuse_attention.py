"""fuse-attention: attention over copies of a decoder's pages becomes attention that reads them where they lie.

A captured decoder gathers the keys and values of each row, repeats them for grouped heads and masks them.  On GPUs
that costs 14 to 26 times what one kernel takes that reads each key once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import sympy
import torch

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.graph import Call, Graph, Node, Value
from ir.machine.cluster import Cluster
from ir.machine.kinds import runs_kernels
from ir.operators.facts import aten
from ir.paged.paged_operator import PAGED_ATTENTION
from ir.sizes import Dim, TensorType
from passes.fusing.attention.found import Attention, attention_in
from passes.fusing.attention.layouts import equal
from passes.fusing.attention.scores import QUERY, ROW, Scores, keeps_order
from passes.fusing.attention.visible import Terms, Visible, by_head, visible
from passes.fusing.masks.elements import Unknown
from passes.options.options import Options, OverPages
from passes.pipeline import each_program


@dataclass(frozen=True)
class FuseAttention:
    """Attention is fused where it follows from the formula of its mask which keys each query sees.

    It is left as it is where a mask has no formula of this form, and where `attention` is plain.
    """

    attention: OverPages = Options.attention

    name: ClassVar = "fuse-attention"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether attention over pages is to be fused."""
        asked = OverPages(self.attention)
        return asked is OverPages.paged or (asked is OverPages.auto and runs_kernels(cluster))

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        return _Fusing(graph).fused() if graph.decoding.page and self.looks_at(cluster) else graph


@dataclass
class _Fusing:
    """The nodes that take the place of attention in a graph."""

    graph: Graph
    name: Namer = field(init=False)
    terms: Terms = field(init=False)
    known: dict[tuple[sympy.Expr, ...], Value] = field(default_factory=dict)  # the last places that are seen
    before: dict[Node, list[Call]] = field(default_factory=dict)  # new nodes, by the node that they come before

    def __post_init__(self) -> None:
        self.name, self.terms = Namer(self.graph.names), Terms(self.graph)

    def fused(self) -> Graph:
        nodes: list[Node] = []
        for node in self.graph.nodes:
            nodes += self._instead(node)
        placed = tuple(n for node in nodes for n in (*self.before.get(node, ()), node))
        return without_dead_code(replace(self.graph, nodes=placed))

    def _instead(self, node: Node) -> list[Node]:
        found = attention_in(node, self.graph)
        if found is None:
            return [node]
        try:
            return list(self._paged(found))
        except Unknown:
            return [node]

    def _paged(self, found: Attention) -> Iterator[Node]:
        """The nodes of attention over pages.  Raises Unknown where a mask has no such form."""
        scores, node = found.scores, found.node
        seen = visible(scores, self.terms)
        slopes = by_head(seen.slope, self.terms) if seen.slope != 0 else None
        sinks = by_head(self.terms.at(scores.sinks.value, scores.sinks.index), self.terms) if scores.sinks else None
        last = self._last(seen, scores, node)
        result = node.results[0]
        query = self._in_dtype(scores.query, scores.keys.pool.type.dtype)
        batch, heads, seq, _ = scores.shape
        if len(query.type.shape) == 3:
            shape = (batch, heads, seq, query.type.shape[-1])
            yield (view := self._reshaped(query, shape, node))
            query = view.results[0]
        options = {"window": seen.window, "cap": scores.cap, "slopes": slopes, "sinks": sinks}
        kwargs = {"scale": float(scores.scale)} | {k: v for k, v in options.items() if v is not None and v != 0}
        args = (query, scores.keys.pool, found.values.pool, scores.keys.table, last)
        kept = replace(node, op=PAGED_ATTENTION, args=args, kwargs=kwargs)
        if node.op == aten.scaled_dot_product_attention.default:
            yield kept
            return
        shape = (batch, heads, seq, found.values.pool.type.shape[-1])
        whole = Value(self.name("attention"), TensorType(shape, result.type.dtype))
        yield replace(kept, results=(whole,))
        if len(result.type.shape) == 4:  # a view of a product asks for its layout in memory
            yield replace(node, op=aten.contiguous.default, args=(whole,), kwargs={})
        else:
            yield replace(node, op=aten.reshape.default, args=(whole, list(result.type.shape)), kwargs={})

    def _in_dtype(self, query: Value, dtype: torch.dtype) -> Value:
        """Queries before they are cast from the dtype of the pool.  Raises Unknown for those of another dtype."""
        node = self.graph.producer.get(query)
        if query.type.dtype == dtype:
            return query
        if not isinstance(node, Call) or not keeps_order(node) or node.operands[0].type.shape != query.type.shape:
            raise Unknown
        return self._in_dtype(node.operands[0], dtype)

    def _reshaped(self, value: Value, shape: tuple[Dim, ...], node: Call) -> Call:
        made = Value(self.name("query"), TensorType(shape, value.type.dtype))
        return replace(node, op=aten.reshape.default, args=(value, list(shape)), kwargs={}, results=(made,))

    def _last(self, seen: Visible, scores: Scores, node: Call) -> Value:
        """The last place that each query sees, `int64[batch, seq]`, computed where the first mask of its kind is."""
        if seen.last not in self.known:
            masks = [n for added in scores.added if (n := self.graph.producer.get(added.value)) is not None]
            self.known[seen.last] = self._computed(seen, scores, masks[0] if masks else node)
        return self.known[seen.last]

    def _computed(self, seen: Visible, scores: Scores, at: Node) -> Value:
        made = [self._sum(place, at) for place in seen.last]
        last = made[0]
        for other in made[1:]:
            last = self._call(aten.minimum.default, (last, other), _broadcast(last, other), at)
        shape = (scores.shape[0], scores.shape[2])
        if not all(equal(a, b) for a, b in zip(last.type.shape, shape, strict=False)) or len(last.type.shape) != 2:
            last = self._call(aten.expand.default, (last, list(shape)), shape, at)
        return last

    def _sum(self, place: sympy.Expr, at: Node) -> Value:
        """A sum of elements of tensors as a tensor that is broadcast to `[batch, seq]`."""
        total: Value | None = None
        terms = place.as_coefficients_dict()
        for symbol in sorted((s for s in terms if s != 1), key=lambda s: (-terms[s], str(s))):
            tensor = self._by_row(symbol, at)
            if total is None and terms[symbol] == 1:
                total = tensor
            elif total is not None and terms[symbol] in (1, -1):
                op = aten.add.Tensor if terms[symbol] == 1 else aten.sub.Tensor
                total = self._call(op, (total, tensor), _broadcast(total, tensor), at)
            else:
                raise Unknown
        if total is None:
            raise Unknown
        if terms[1]:
            total = self._call(aten.add.Tensor, (total, int(terms[1])), total.type.shape, at)
        return total

    def _by_row(self, symbol: sympy.Basic, at: Node) -> Value:
        """The tensor of a symbol's elements, broadcast to `[batch, seq]`."""
        value, index = self.terms.tensors.get(symbol, (None, ()))  # type: ignore[call-overload]
        if value is None or value.type.dtype is not torch.int64:
            raise Unknown
        sizes = [(i, size) for i, size in zip(index, value.type.shape, strict=True) if i != 0 or size != 1]
        found = [i for i, _ in sizes]
        if found not in ([], [ROW], [QUERY], [ROW, QUERY]):
            raise Unknown
        if [*index] == [ROW, QUERY]:
            return value
        if [*index] == [ROW]:
            return self._call(aten.unsqueeze.default, (value, 1), (*value.type.shape, 1), at)
        shape = (dict(sizes).get(ROW, 1), dict(sizes).get(QUERY, 1))
        return self._call(aten.reshape.default, (value, list(shape)), shape, at)

    def _call(self, op: torch._ops.OpOverload, args: tuple, shape: tuple[Dim, ...], at: Node) -> Value:
        made = Value(self.name("last"), TensorType(shape, torch.int64))
        call = Call(op=op, args=args, results=(made,), where=at.where, program=at.program)
        self.before.setdefault(at, []).append(call)
        return made


def _broadcast(one: Value, two: Value) -> tuple[Dim, ...]:
    return tuple(b if a == 1 else a for a, b in zip(one.type.shape, two.type.shape, strict=True))
