"""The attention of a graph over pages: calls of torch's own, and softmax written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ir.graph import Call, Graph, Node, Value
from ir.operators.facts import aten, aten_name
from passes.fusing.attention.layouts import names_of
from passes.fusing.attention.pages import KEYS, FromPages, from_pages
from passes.fusing.attention.scores import Addend, Mask, Scores, heads_of, keeps_order, scores_in, scores_of


@dataclass(frozen=True)
class Attention:
    """A node that computes `softmax(scores) @ values`."""

    node: Call
    scores: Scores
    values: FromPages


def attention_in(node: Node, graph: Graph) -> Attention | None:
    """The attention whose result a node computes; None where it computes something else, or not over pages."""
    if not isinstance(node, Call) or node.unpacks:
        return None
    if node.op == aten.scaled_dot_product_attention.default:
        found = _of_torch(node, node.arguments, graph)
    else:
        found = _written_out(node, graph) if aten_name(node.op) in ("matmul", "bmm") else None
    return found if found is not None and _fits(found) else None


def _of_torch(node: Call, given: Mapping[str, Any], graph: Graph) -> Attention | None:
    keys, values, mask = from_pages(given["key"], graph), from_pages(given["value"], graph), given["attn_mask"]
    if keys is None or values is None or given["dropout_p"] or given["is_causal"]:
        return None
    scores = scores_of(given["query"], keys, grouped=given["enable_gqa"])
    if scores is None:
        return None
    scale = given["scale"] or float(given["query"].type.shape[-1]) ** -0.5
    scores = replace(scores, scale=scale)
    if mask is not None:
        shape = (*scores.shape[:3], scores.shape[3])
        index = scores.index(mask, Value("", replace(mask.type, shape=shape)))
        if index is None:
            return None
        added = Mask(mask, index, True) if str(mask.type.dtype) == "torch.bool" else Addend(mask, index)
        scores = replace(scores, added=(added,))
    return Attention(node, scores, values)


def _written_out(node: Call, graph: Graph) -> Attention | None:
    weights, values = node.operands[0], from_pages(node.operands[-1], graph)
    if values is None:
        return None
    sliced = False
    while (made := graph.producer.get(weights)) is not None and isinstance(made, Call):
        if made.op in (aten.softmax.int, aten._softmax.default):
            scores = scores_in(made.operands[0], graph)
            last = made.arguments["dim"] % len(weights.type.shape) == len(weights.type.shape) - 1
            known = scores is not None and not scores.squashed and last and bool(scores.sinks) == sliced
            return Attention(node, scores, values) if known and scores is not None else None
        if aten_name(made.op) == "slice":
            if sliced or (made.arguments["start"], made.arguments["end"], made.arguments["step"]) != (0, -1, 1):
                return None
            sliced = True
        elif not keeps_order(made):
            return None
        weights = made.operands[0]
    return None


def _fits(found: Attention) -> bool:
    """Whether keys and values are those of the same rows and heads, and in the dtype of the queries."""
    scores, values = found.scores, found.values
    *lead, by_key, of_key = values.layout
    heads, of_keys = heads_of(values, len(lead)), heads_of(scores.keys, len(scores.keys.layout) - 2)
    alike = heads is not None and heads == of_keys and values.heads == scores.keys.heads
    same_rows = scores.keys.table is values.table
    in_order = names_of(by_key) == KEYS and names_of(of_key) in (("dim",), ())
    return bool(alike and same_rows and in_order)
