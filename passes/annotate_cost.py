"""annotate-cost: the cost of each node on any machine, as expressions over the dynamic sizes.

An operator that is neither in the table of flops (cost_models/flops.py) nor in that of bytes (cost_models/traffic.py)
does no contraction, and reads and writes each of its tensors once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import sympy
import torch

from ir.analysis.memory import smaller_source
from ir.analysis.verify import costed
from ir.checkpoint.quantized.scaled_operator import is_dequantized
from ir.cost import FREE, Arithmetic, Cost
from ir.graph import Call, Graph, Node, Transfer, Value, is_whole
from ir.machine.cluster import Cluster, Unit
from ir.operators.facts import aten_name
from ir.operators.higher_order import higher_order_of, is_higher_order, with_inner
from ir.operators.registration import comes_with_torch
from ir.paged.paged_operator import is_paged
from ir.quantized_linear.linear_operator import is_quantized_linear
from ir.sizes import Dim, at
from passes.cost_models.dequantizing import dequantizing_cost
from passes.cost_models.flops import FLOP_UNITS, FLOPS
from passes.cost_models.higher_order import higher_order_cost
from passes.cost_models.kernels import with_kernel_costs
from passes.cost_models.profiling import Progress, profile
from passes.cost_models.registered_flops import registered_flops
from passes.cost_models.traffic import TRAFFIC, each_once
from passes.options.options import CostSource, Options


@dataclass(frozen=True)
class AnnotateCost:
    """Flops of contractions by their formulas, bytes of all other operators; views are free.

    With `cost` profiled, each node also gets the measured time of its operator on the devices.
    """

    cost: CostSource = Options.cost
    progress: Progress = str  # called with a line of text while operators are timed

    name: ClassVar = "annotate-cost"
    requires: ClassVar = ()
    ensures: ClassVar = (costed,)

    def looks_at(self, cluster: Cluster) -> Hashable:
        return cluster.devices if self.cost == CostSource.profiled else ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        source = smaller_source(graph)
        graph = with_kernel_costs(graph.map(lambda node: replace(node, cost=node_cost(node, source, graph.hints))))
        if self.cost != CostSource.profiled:
            graph = replace(graph, notes=tuple(dict.fromkeys((*graph.notes, *_unknown(graph)))))
        return profile(graph, cluster, self.progress) if self.cost == CostSource.profiled else graph


def node_cost(node: Node, source: Mapping[Value, Value], sizes: Mapping[sympy.Symbol, int]) -> Cost:
    """The cost of one node.

    `source` maps a view to the value whose memory it lies in; `sizes` decide which of two tensors is larger.
    """
    if isinstance(node, Transfer):
        return Cost(0, node.value.type.nbytes)
    if node.view and not node.op._schema.is_mutable:
        return FREE
    if is_higher_order(node):
        return higher_order_cost(node, higher_order_of(node), lambda inner: node_cost(inner, {}, sizes), sizes)
    if is_dequantized(node):
        return dequantizing_cost(node)
    name = _name(node)
    nbytes = TRAFFIC.get(name, each_once)(node, source)
    dtype = _dtype(node)
    if name in FLOPS:
        return Cost(FLOPS[name](node), nbytes, arithmetic=Arithmetic(_unit(name, node, dtype), dtype))
    if not name and (flops := registered_flops(node, sizes)) is not None:
        return Cost(flops, nbytes, arithmetic=Arithmetic("product", dtype))
    return Cost(0, nbytes, elements=_one_by_one(name, node, source, sizes))


def _name(node: Call) -> str:
    """The name of an operator in the tables of flops and of bytes."""
    own = ("paged_attention", is_paged), ("quantized_linear", is_quantized_linear), ("module", is_whole)
    return next((name for name, test in own if test(node)), "") or aten_name(node.op)


def _unknown(graph: Graph) -> Iterator[str]:
    """A note for each operator from outside torch without a formula of flops, and for loops that values end."""
    for node in (n for outer in graph.nodes if isinstance(outer, Call) for n in with_inner(outer)):
        if not comes_with_torch(node.op) and registered_flops(node, graph.hints) is None:
            yield (
                f"the cost of {node.op._schema.name} is unknown: it counts as reading and writing each of its tensors "
                "once; torch.utils.flop_counter.register_flop_formula or --cost profiled tells more"
            )
        if is_higher_order(node) and (what := higher_order_of(node)).name == "while_loop" and what.turns == 1:
            yield f"values decide how often while_loop runs in {node.where}: its cost is that of one turn"


def _one_by_one(name: str, node: Call, source: Mapping[Value, Value], sizes: Mapping[sympy.Symbol, int]) -> Dim:
    """The number of elements of the largest tensor; 0 where all have one shape and dtype, scalars aside."""
    types = [source.get(v, v).type for v in (*node.operands, *node.results)]
    if len({(t.shape, t.dtype) for t in types if t.numel != 1}) <= 1:
        return 0
    moved = node.results if name in TRAFFIC else (*node.operands, *node.results)
    if name == "index_put_":
        moved = (node.arguments["values"],)
    return max((v.type.numel for v in moved), key=lambda numel: at(numel, sizes))


def _unit(name: str, node: Call, dtype: torch.dtype) -> Unit:
    unit = FLOP_UNITS.get(FLOPS[name], "product")
    if unit == "attention":
        mask = node.arguments.get("attn_mask")
        by_head = isinstance(mask, Value) and len(mask.type.shape) > 2 and mask.type.shape[-3] != 1
        return "biased_attention" if by_head else "attention"
    if unit == "convolution":
        return "unaligned_convolution" if _unaligned(node.arguments["weight"].type.shape[1:2], dtype) else "convolution"
    rows = [v.type.shape[-1] for v in (*node.operands, *node.results) if v.type.shape]
    return "unaligned_product" if _unaligned(rows, dtype) else "product"


def _unaligned(sizes: Iterable[Dim], dtype: torch.dtype) -> bool:
    """Whether a row is known not to be a multiple of 16 bytes, the unit in which tensor cores load."""
    return any(isinstance(size, int) and size * dtype.itemsize % 16 for size in sizes)


def _dtype(node: Call) -> torch.dtype:
    """The dtype that a contraction multiplies: of its first floating-point operand, or else of its result."""
    return next((v.type.dtype for v in node.operands if v.type.dtype.is_floating_point), node.results[0].type.dtype)
