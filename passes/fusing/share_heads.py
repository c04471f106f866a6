"""share-heads: attention reads keys and values of grouped heads as they are, without a copy for each head of queries.

transformers repeats them while it is exported.  Flash attention on GPUs takes fewer heads of keys and values than of
queries; with a mask or in float32, torch would compute such attention without a fused kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from ir.analysis.dead_code import without_dead_code
from ir.graph import Call, Graph, Node, Value
from ir.machine.cluster import Cluster
from ir.machine.kinds import has_flash_attention
from ir.operators.facts import aten
from passes.fusing.attention.layouts import REPEAT, factored, rearranged, rearranges
from passes.pipeline import each_program


@dataclass(frozen=True)
class ShareHeads:
    """Attention is given the keys and values that a model repeats, where flash attention computes it."""

    name: ClassVar = "share-heads"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether a device has flash attention."""
        return any(has_flash_attention(device.name) for device in cluster.devices)

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        if not self.looks_at(cluster):
            return graph
        return without_dead_code(graph.map(lambda node: _sharing(node, graph)))


_WIDEST = 256  # the largest dimension of a head that flash attention takes
_HALF = (torch.float16, torch.bfloat16)


def _sharing(node: Node, graph: Graph) -> Node:
    """Attention over the keys and values before they are repeated; any other node as it is."""
    if not isinstance(node, Call) or node.op != aten.scaled_dot_product_attention.default:
        return node
    given = node.arguments
    if not _is_flash(given):
        return node
    key, value = _unrepeated(given["key"], graph), _unrepeated(given["value"], graph)
    if key is given["key"] or key.type.shape[1] != value.type.shape[1]:
        return node
    kept = {name: given[name] for name in ("is_causal", "scale") if given[name]}
    return replace(node, args=(given["query"], key, value), kwargs=kept | {"enable_gqa": True})


def _is_flash(given: Mapping[str, Any]) -> bool:
    """Whether flash attention computes attention with these arguments."""
    query, key, value = (given[name].type for name in ("query", "key", "value"))
    if given["attn_mask"] is not None or given["dropout_p"] or given["enable_gqa"] or query.dtype not in _HALF:
        return False
    if len(query.shape) != 4 or query.shape[:2] != key.shape[:2] or key.shape[:2] != value.shape[:2]:
        return False
    width = query.shape[-1]
    narrow = isinstance(width, int) and width <= _WIDEST and value.shape[-1] == width
    return narrow and (not given["is_causal"] or query.shape[2] == key.shape[2])


def _unrepeated(value: Value, graph: Graph) -> Value:
    """The tensor of which `value`, `[batch, heads, keys, dim]`, repeats each head some times, or `value` itself."""
    moves, source = list[Call](), value
    while isinstance(node := graph.producer.get(source), Call) and rearranges(node):
        moves, source = [node, *moves], node.operands[0]
        if _repeats_heads(moves):
            return _unrepeated(source, graph)
    return value


def _repeats_heads(moves: list[Call]) -> bool:
    """Whether operators in a row repeat each head of `[batch, heads, keys, dim]`, its copies next to each other."""
    source, (_, heads, *_) = moves[0].operands[0].type.shape, moves[-1].results[0].type.shape
    if len(source) != 4 or not isinstance(heads, int) or not isinstance(source[1], int) or source[1] >= heads:
        return False
    batch, fewer, keys, dim = source
    outer, inner = [("batch", batch)], ([("keys", keys)], [("dim", dim)])
    layout = factored(outer, [("heads", fewer)], *inner)
    for node in moves:
        if layout is None:
            return False
        layout = rearranged(node, layout)
    return layout == factored(outer, [("heads", fewer), (REPEAT, heads // fewer)], *inner)
