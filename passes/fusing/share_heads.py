"""share-heads: attention reads keys and values of grouped heads as they are, without a copy for each head of queries.

transformers repeats them while it is exported.  Flash attention on GPUs takes fewer heads of keys and values than of
queries; with a mask or in float32, torch has no fused kernel for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ir.analysis.borders import Namer
from ir.analysis.dead_code import without_dead_code
from ir.graph import Call, Graph, Node, Value
from ir.machine.cluster import Cluster
from ir.machine.host import lacks_flash_attention
from ir.machine.kinds import has_flash_attention
from ir.operators.facts import aten
from ir.sizes import Dim
from passes.fusing.attention.layouts import REPEAT, Factors, factored, rearranged, rearranges
from passes.pipeline import each_program


@dataclass(frozen=True)
class ShareHeads:
    """Attention takes keys and values before they are repeated, where flash attention computes it."""

    name: ClassVar = "share-heads"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether a device has flash attention, and none of this host is too old for it."""
        return any(has_flash_attention(device.name) for device in cluster.devices) and not lacks_flash_attention()

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        if not self.looks_at(cluster):
            return graph
        name = Namer(graph.names)
        nodes = tuple(new for node in graph.nodes for new in _sharing(node, graph, name))
        return without_dead_code(replace(graph, nodes=nodes))


@dataclass(frozen=True)
class _Heads:
    """Keys or values with the fewest heads that are known, at dimension `at` of four: 1, or 2 behind the keys."""

    value: Value
    at: int = 1

    @property
    def count(self) -> Dim:
        return self.value.type.shape[self.at]


_WIDEST = 256  # the largest dimension of a head that flash attention takes
_HALF = (torch.float16, torch.bfloat16)


def _sharing(node: Node, graph: Graph, name: Namer) -> list[Node]:
    """Attention over the keys and values before they are repeated; any other node as it is."""
    if not isinstance(node, Call) or node.op != aten.scaled_dot_product_attention.default:
        return [node]
    given = node.arguments
    if not _is_flash(given):
        return [node]
    keys, values = _unrepeated(given["key"], graph), _unrepeated(given["value"], graph)
    if keys.count != values.count or keys.count == given["query"].type.shape[1]:
        return [node]
    turned = {heads: _turned(heads, node, name("heads")) for heads in (keys, values) if heads.at == 2}
    args = (turned[heads].results[0] if heads in turned else heads.value for heads in (keys, values))
    kept = {"is_causal": given["is_causal"], "scale": given["scale"]}
    kept = {option: value for option, value in kept.items() if value is not None and value is not False}
    shared = replace(node, args=(given["query"], *args), kwargs=kept | {"enable_gqa": True})
    return [*turned.values(), shared]


def _is_flash(given: Mapping[str, Any]) -> bool:
    """Whether flash attention computes attention with these arguments, once its heads are shared."""
    query, key, value = (given[name].type for name in ("query", "key", "value"))
    if given["attn_mask"] is not None or given["dropout_p"] or given["enable_gqa"] or query.dtype not in _HALF:
        return False
    if len(query.shape) != 4 or query.shape[:2] != key.shape[:2] or key.shape[:2] != value.shape[:2]:
        return False  # one head of keys for all of queries, too, which torch repeats itself: that rounds otherwise
    width = query.shape[-1]
    narrow = isinstance(width, int) and width <= _WIDEST and value.shape[-1] == width
    return narrow and (not given["is_causal"] or query.shape[2] == key.shape[2])


def _turned(heads: _Heads, at: Call, name: str) -> Call:
    """The view of `[batch, keys, heads, dim]` whose second dimension counts heads."""
    batch, keys, count, dim = heads.value.type.shape
    made = Value(name, replace(heads.value.type, shape=(batch, count, keys, dim)))
    return Call(op=aten.transpose.int, args=(heads.value, 1, 2), results=(made,), where=at.where, program=at.program)


def _unrepeated(value: Value, graph: Graph) -> _Heads:
    """The tensor of which `value`, `[batch, heads, keys, dim]`, repeats each head some times, or `value` itself."""
    moves, source = list[Call](), value
    while isinstance(node := graph.producer.get(source), Call) and rearranges(node):
        moves, source = [node, *moves], node.operands[0]
        if _repeats_heads(moves, 1):
            return _unrepeated(source, graph)
        if _repeats_heads(moves, 2):
            return _Heads(source, 2)
    return _Heads(value)


def _repeats_heads(moves: Sequence[Call], at: int) -> bool:
    """Whether operators in a row repeat each head of a tensor, its copies next to each other.

    Heads are at dimension `at` of the tensor, and at dimension 1 of `[batch, heads, keys, dim]`, the result.
    """
    shape, (_, heads, *_) = moves[0].operands[0].type.shape, moves[-1].results[0].type.shape
    if len(shape) != 4 or not isinstance(heads, int) or not isinstance(fewer := shape[at], int) or fewer >= heads:
        return False
    sizes = ("batch", shape[0]), ("heads", fewer), ("keys", shape[3 - at]), ("dim", shape[3])
    batch, own, keys, dim = factored(*([size] for size in sizes))
    layout: Factors | None = (batch, own, keys, dim) if at == 1 else (batch, keys, own, dim)
    for node in moves:
        layout = None if layout is None else rearranged(node, layout)
    (copies,) = factored([(REPEAT, heads // fewer)])
    return layout == (batch, own + copies, keys, dim)
