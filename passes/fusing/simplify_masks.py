"""simplify-masks: `is_causal` or nothing in place of attention masks, so that torch takes its fast kernels.

transformers computes every mask explicitly while it is exported.  Flash attention on GPUs takes no mask, but has a
causal mode; on the CPU that mode leaves out the half of the work that is masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch

from ir.analysis.dead_code import without_dead_code
from ir.graph import Call, Graph, Node, Value
from ir.machine.cluster import Cluster
from ir.machine.kinds import has_flash_attention
from ir.sizes import Dim
from passes.fusing.masks.formulas import Formulas
from passes.fusing.masks.kinds import MaskKind, kind_by_formula, mask_kind
from passes.pipeline import each_program


@dataclass(frozen=True)
class SimplifyMasks:
    """A mask is removed if it is causal at all allowed sizes, or masks nothing at all of them.

    A mask that depends on the values of an input stays.
    """

    name: ClassVar = "simplify-masks"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def looks_at(self, cluster: Cluster) -> bool:
        """Whether a device has kernels for causal attention that take no mask."""
        return any(has_flash_attention(device.name) for device in cluster.devices)

    @each_program
    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        formulas = Formulas(graph)
        kinds = cache(lambda mask, q, k: mask_kind(mask, (q, k), formulas))

        def simple(node: Node) -> Node:
            if (attention := _masked(node)) is None:
                return node
            kind = kinds(attention["attn_mask"], *_lengths(attention))
            return node if kind is None else _without_mask(node, attention, kind)  # type: ignore[arg-type]

        simplified = graph.map(simple)
        if self.looks_at(cluster):
            simplified = replace(simplified, notes=(*graph.notes, *_padded(simplified)))
        return without_dead_code(simplified)


_POSITIONAL = ("query", "key", "value")


def _masked(node: Node) -> Mapping[str, Any] | None:
    """The arguments of a node by name, if it is attention with a mask that may be removed."""
    if not isinstance(node, Call) or node.op != torch.ops.aten.scaled_dot_product_attention.default:
        return None
    mask = node.arguments["attn_mask"]
    return node.arguments if isinstance(mask, Value) and _is_no_wider(mask, node.arguments["query"]) else None


def _is_no_wider(mask: Value, query: Value) -> bool:
    """Whether attention without the mask would have as many batches and heads."""
    more, dims = mask.type.shape[:-2], query.type.shape[:-2]
    return len(more) <= len(dims) and all(
        size in (1, dim) for size, dim in zip(reversed(more), reversed(dims), strict=False)
    )


def _lengths(attention: Mapping[str, Any]) -> tuple[Dim, Dim]:
    return attention["query"].type.shape[-2], attention["key"].type.shape[-2]


def _without_mask(node: Call, attention: Mapping[str, Any], kind: MaskKind) -> Call:
    args = tuple(attention[name] for name in _POSITIONAL)
    kept = {name: given for name, given in attention.items() if name not in (*_POSITIONAL, "attn_mask", "is_causal")}
    kwargs = kept | {"is_causal": kind == "causal"}
    return replace(
        node, args=args, kwargs={name: given for name, given in kwargs.items() if given not in (None, False)}
    )


def _padded(graph: Graph) -> Iterator[str]:
    """A note for the user if a mask could be removed in a model without padding."""
    formulas = Formulas(graph, inputs=1)
    for node in graph.nodes:
        attention = _masked(node)
        if attention is not None and kind_by_formula(attention["attn_mask"], _lengths(attention), formulas) is not None:
            yield (
                "attention takes a mask made of the inputs' values, for which GPUs have no flash kernel; where no text "
                "of a batch is padded, give example inputs without attention_mask (of a checkpoint: --no-padding)"
            )
            return
