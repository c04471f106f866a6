"""The scores of attention as a model computes them: the product of queries and keys, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import sympy

from ir.graph import Call, Constant, Graph, Value
from ir.operators.facts import Elements, aten_name, rearrangement
from ir.sizes import Dim
from passes.fusing.attention.layouts import REPEAT, equal, names_of
from passes.fusing.attention.pages import KEYS, FromPages, from_pages
from passes.fusing.masks.elements import Index
from passes.fusing.masks.kinds import NEVER

ROW, HEAD, QUERY, KEY = (sympy.Symbol(name, integer=True, nonnegative=True) for name in ("row", "head", "query", "key"))
"""The place of a score."""

_LEAST = 1e-3  # a factor of masked scores: times less, what masks a score would not be far from it


@dataclass(frozen=True)
class Addend:
    """A tensor that is added to scores, and the index in it of the score at (`ROW`, `HEAD`, `QUERY`, `KEY`)."""

    value: Value
    index: Index
    factor: float = 1.0  # by which scores are multiplied after it

    def scaled(self, factor: float) -> Addend:
        return replace(self, factor=self.factor * factor)


@dataclass(frozen=True)
class Mask:
    """A condition on scores: those where the tensor is `shown` count, the others do not."""

    value: Value
    index: Index
    shown: bool

    def scaled(self, factor: float) -> Mask:
        return self


@dataclass(frozen=True)
class Scores:
    """The scores `cap * tanh(scale / cap * query @ keys) + addends`, without tanh where `cap` is 0, under masks."""

    query: Value  # [batch, heads, seq, dim] or [batch * heads, seq, dim]
    keys: FromPages
    shape: tuple[Dim, Dim, Dim, Dim]  # batch, heads, queries, keys
    scale: float = 1.0
    cap: float = 0.0
    squashed: bool = False  # tanh has been met, and not yet the product with `cap`
    added: tuple[Addend | Mask, ...] = ()
    sinks: Addend | None = None

    def index(self, value: Value, within: Value) -> Index | None:
        """The index of a score in a tensor that is broadcast to `within`, a tensor of these scores."""
        batch, heads, _, width = self.shape
        shape = within.type.shape
        match len(shape):
            case 4 if equal(shape[1], heads):
                index: Index = (ROW, HEAD, QUERY, KEY)
            case 3 if equal(shape[0], batch, heads):
                index = (ROW * heads + HEAD, QUERY, KEY)
            case _:
                return None
        if self.sinks is None and not equal(shape[-1], width):
            return None
        own = value.type.shape
        last = index[len(index) - len(own) :]
        return tuple(sympy.Integer(0) if size == 1 else i for size, i in zip(own, last, strict=True))


def scores_in(value: Value, graph: Graph) -> Scores | None:
    """The scores that a tensor holds, as far as it is known what they are made of; else None."""
    node = graph.producer.get(value)
    if not isinstance(node, Call) or node.unpacks:
        return None
    if keeps_order(node):
        scores = scores_in(node.operands[0], graph)
        return scores if scores is not None and scores.index(value, value) is not None else None
    read = _READERS.get(aten_name(node.op))
    return read(node, graph) if read else None


def keeps_order(node: Call) -> bool:
    """Whether a node gives its operand another shape or dtype, and nothing else."""
    moves = rearrangement(node.op)
    return moves is not None and moves.elements in (Elements.SAME, Elements.CAST, Elements.RESHAPED)


def _product(node: Call, graph: Graph) -> Scores | None:
    """`query @ keys`."""
    query, keys = node.operands[-2:]
    held = from_pages(keys, graph)
    return None if held is None else scores_of(query, held, transposed=True)


def scores_of(query: Value, keys: FromPages, transposed: bool = False, grouped: bool = False) -> Scores | None:
    """The product of queries with keys; None for keys in an order that attention over pages does not have.

    `transposed`: the last dimension of the keys counts keys.  `grouped`: each of their heads stands for several.
    """
    *lead, one, two = keys.layout
    by_key, of_key = (two, one) if transposed else (one, two)
    if names_of(by_key) != KEYS or names_of(of_key) not in (("dim",), ()) or len(query.type.shape) != len(keys.layout):
        return None
    heads = heads_of(keys, len(lead))
    *outer, seq, _ = query.type.shape
    batch, width = keys.table.type.shape[0], _size(by_key)
    if heads is None:
        return None
    if len(outer) == 2 and equal(outer[0], batch):
        each = outer[1]
        if not (equal(each, heads) or ((grouped or heads == 1) and keys.heads == heads)):
            return None
    elif len(outer) == 1 and equal(outer[0], batch, heads):
        each = heads
    else:
        return None
    return Scores(query, keys, (batch, each, seq, width))


def heads_of(held: FromPages, lead: int) -> Dim | None:
    """The number of heads, where those of a pool are repeated next to each other or not at all.

    `lead` dimensions, one or two, count batch and heads.
    """
    found = [factor for dim in held.layout[:lead] for factor in dim]
    batch = [factor for factor in found if factor.name == "batch"]
    own = found[len(batch) :]
    fits = found[: len(batch)] == batch and names_of(own) in ((), ("heads",), (REPEAT,), ("heads", REPEAT))
    apart = lead == 1 or (lead == 2 and list(held.layout[0]) == batch)
    return _size(own) if fits and apart else None


def _size(factors: Any) -> Dim:
    return sympy.prod(factor.size for factor in factors)


def _biased_product(node: Call, graph: Graph) -> Scores | None:
    """`bias + scale * query @ keys`."""
    scores, given = _product(node, graph), node.arguments
    if scores is None:
        return None
    scores = replace(scores, scale=scores.scale * given["alpha"])
    if given["beta"] == 0:
        return scores
    return _with(scores, given["self"], node) if given["beta"] == 1 else None


def _scaled(sign: int) -> _Reader:
    def read(node: Call, graph: Graph) -> Scores | None:
        one, two = node.args[:2]
        number = _number(two) if isinstance(one, Value) else None
        if number is None and sign > 0:  # a product, either way around
            one, two, number = two, one, _number(one)
        scores = scores_in(one, graph) if isinstance(one, Value) and number is not None else None
        if scores is None or not number or scores.sinks:
            return None
        factor = number**sign
        if scores.squashed:
            return replace(scores, scale=scores.scale * factor, cap=factor, squashed=False)
        if scores.cap or (scores.added and factor < _LEAST):
            return None
        added = tuple(addend.scaled(factor) for addend in scores.added)
        return replace(scores, scale=scores.scale * factor, added=added)

    return read


def _number(given: Any) -> float | None:
    """A number, or that of a constant with one element."""
    if isinstance(given, Constant) and not given.data.is_meta and given.data.numel() == 1:
        return float(given.data)
    return float(given) if isinstance(given, (int, float)) else None


def _squashed(node: Call, graph: Graph) -> Scores | None:
    scores = scores_in(node.operands[0], graph)
    plain = scores is not None and not (scores.cap or scores.squashed or scores.added or scores.sinks)
    return replace(scores, squashed=True) if plain and scores is not None else None


def _sum(node: Call, graph: Graph) -> Scores | None:
    given = node.arguments
    for one, two in ((given["self"], given["other"]), (given["other"], given["self"])):
        scores = scores_in(one, graph) if isinstance(one, Value) else None
        if scores is not None and given["alpha"] == 1:
            return _with(scores, two, node) if isinstance(two, Value) else scores
    return None


def _difference(node: Call, graph: Graph) -> Scores | None:
    """The scores of a query less one number: softmax does not see it."""
    scores, less = scores_in(node.operands[0], graph), node.operands[-1]
    by_query = less.type.shape and less.type.shape[-1] == 1
    return scores if by_query and len(node.operands) == 2 else None


def _with(scores: Scores, value: Value, node: Call) -> Scores | None:
    index = scores.index(value, node.results[0])
    if index is None or scores.squashed or scores.sinks:
        return None
    return replace(scores, added=(*scores.added, Addend(value, index)))


def _filled(node: Call, graph: Graph) -> Scores | None:
    """`scores.masked_fill(mask, low)`."""
    given = node.arguments
    return _masked(given["self"], given["mask"], given["value"], False, node, graph)


def _chosen(node: Call, graph: Graph) -> Scores | None:
    """`torch.where(mask, scores, low)`."""
    given = node.arguments
    return _masked(given["self"], given["condition"], given["other"], True, node, graph)


def _masked(kept: Any, mask: Value, low: Any, shown: bool, node: Call, graph: Graph) -> Scores | None:
    scores, number = scores_in(kept, graph) if isinstance(kept, Value) else None, _low(low, graph)
    index = None if scores is None else scores.index(mask, node.results[0])
    if scores is None or index is None or not number or scores.squashed or scores.sinks:
        return None
    return replace(scores, added=(*scores.added, Mask(mask, index, shown)))


def _low(given: Any, graph: Graph) -> bool:
    """Whether a number, or a tensor that is full of it, is so low that a score of it does not count."""
    node = graph.producer.get(given) if isinstance(given, Value) else None
    if isinstance(node, Call):
        given = node.arguments.get("fill_value")
    number = _number(given)
    return number is not None and number <= NEVER


def _with_sinks(node: Call, graph: Graph) -> Scores | None:
    """Scores with one more key at their end, which has no value."""
    tensors, dim = node.arguments["tensors"], node.arguments["dim"]
    if len(tensors) != 2 or dim % len(node.results[0].type.shape) != len(node.results[0].type.shape) - 1:
        return None
    scores, sinks = scores_in(tensors[0], graph), tensors[1]
    if scores is None or scores.squashed or scores.sinks or sinks.type.shape[-1] != 1:
        return None
    index = scores.index(sinks, tensors[0])
    return None if index is None else replace(scores, sinks=Addend(sinks, index))


_Reader: TypeAlias = Callable[[Call, Graph], Scores | None]

_READERS: Mapping[str, _Reader] = {
    "matmul": _product,
    "bmm": _product,
    "baddbmm": _biased_product,
    "mul": _scaled(1),
    "div": _scaled(-1),
    "tanh": _squashed,
    "add": _sum,
    "sub": _difference,
    "masked_fill": _filled,
    "where": _chosen,
    "cat": _with_sinks,
}
