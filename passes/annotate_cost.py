"""annotate-cost: the cost of each node on any machine, as expressions over the dynamic sizes.

To change the cost of an operator, change its line in `_FLOPS` or `_BYTES`; an operator in neither table
does no contraction and reads and writes each of its tensors once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, TypeAlias

import sympy
import torch

from ir.analysis.memory import smaller_source
from ir.analysis.verify import costed
from ir.checkpoint.quantized.scaled_operator import is_dequantized
from ir.cost import FREE, Arithmetic, Cost
from ir.graph import Call, Graph, Node, Transfer, Value, is_whole, opaque_of
from ir.machine.cluster import Cluster, Unit
from ir.operators.facts import aten_name
from ir.operators.higher_order import higher_order_of, is_higher_order, with_inner
from ir.operators.registration import comes_with_torch
from ir.paged.paged_operator import is_paged, keys_read
from ir.quantized_linear.linear_operator import is_quantized_linear
from ir.sizes import Dim, at
from passes.cost_models.dequantizing import dequantizing_cost
from passes.cost_models.higher_order import higher_order_cost
from passes.cost_models.profiling import Progress, profile
from passes.cost_models.registered_flops import registered_flops
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
        graph = graph.map(lambda node: replace(node, cost=node_cost(node, source, graph.hints)))
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
    nbytes = _BYTES.get(name, _touched)(node, source)
    dtype = _dtype(node)
    if name in _FLOPS:
        return Cost(_FLOPS[name](node), nbytes, arithmetic=Arithmetic(_unit(name, node, dtype), dtype))
    if not name and (flops := registered_flops(node, sizes)) is not None:
        return Cost(flops, nbytes, arithmetic=Arithmetic("product", dtype))
    return Cost(0, nbytes, elements=_one_by_one(name, node, source, sizes))


def _name(node: Call) -> str:
    """The name of an operator in the tables of this file."""
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
    moved = node.results if name in _BYTES else (*node.operands, *node.results)
    if name == "index_put_":
        moved = (node.arguments["values"],)
    return max((v.type.numel for v in moved), key=lambda numel: at(numel, sizes))


def _unit(name: str, node: Call, dtype: torch.dtype) -> Unit:
    unit = _UNITS.get(_FLOPS[name], "product")
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


# ---- flops: two for each multiply-add of a contraction, as torch.utils.flop_counter has them

Flops: TypeAlias = Callable[[Call], Dim]


def _product(left: str) -> Flops:
    """A matrix product: each element of the result sums over the last dimension of the operand named `left`."""
    return lambda node: 2 * node.results[0].type.numel * node.arguments[left].type.shape[-1]


def _einsum(node: Call) -> Dim:
    """One multiply-add for each point of the index space and each operand after the first."""
    terms = node.arguments["equation"].replace(" ", "").partition("->")[0].split(",")
    sizes: dict[Any, Dim] = {}
    for term, x in zip(terms, node.arguments["tensors"], strict=True):
        for index, size in zip(_indices(term, len(x.type.shape)), x.type.shape, strict=True):
            sizes[index] = size if sizes.get(index, 1) == 1 else sizes[index]  # a size of 1 is broadcast
    return 2 * (len(terms) - 1) * prod(sizes.values())


def _indices(term: str, rank: int) -> list[Any]:
    """The index of each dimension; those of an ellipsis are numbered from its end."""
    before, _, after = term.partition("...")
    return [*before, *range(len(before) + len(after) - rank, 0), *after]


def _convolution(node: Call) -> Dim:
    """A convolution: each position of the output (of the input, if transposed) meets the whole kernel once."""
    weight = node.arguments["weight"].type.shape
    transposed = bool(node.arguments.get("transposed")) or "transpose" in str(node.op)
    swept = node.arguments["input"] if transposed else node.results[0]
    positions = prod(swept.type.shape[-(len(weight) - 2) :])
    batch = node.results[0].type.shape[0] if len(node.results[0].type.shape) == len(weight) else 1
    return 2 * batch * positions * prod(weight)


def _attention(node: Call) -> Dim:
    """Attention: Q Kᵀ, and the attention weights times V."""
    *batch, queries, depth = node.arguments["query"].type.shape
    keys, width = node.arguments["key"].type.shape[-2], node.arguments["value"].type.shape[-1]
    return 2 * prod(batch) * queries * keys * (depth + width)


def _paged_attention(node: Call) -> Dim:
    """Attention over pages: of each head, its queries with all keys in the pages of their row."""
    _, heads, queries, depth = node.arguments["query"].type.shape
    return 2 * keys_read(node) * heads * queries * (depth + node.arguments["values"].type.shape[-1])


def _cell(node: Call) -> Dim:
    """One step of a recurrent layer: two matrix products."""
    rows = prod(node.arguments["input"].type.shape[:-1])
    return 2 * rows * (node.arguments["w_ih"].type.numel + node.arguments["w_hh"].type.numel)


def _bilinear(node: Call) -> Dim:
    """A bilinear layer: the weight times the first input, and the product times the second."""
    *_, first, second = node.arguments["weight"].type.shape
    return 2 * node.results[0].type.numel * second * (first + 1)


def _contracted(node: Call) -> Dim:
    """A tensordot: each element of the result sums over the contracted dimensions."""
    shape = node.arguments["self"].type.shape
    return 2 * node.results[0].type.numel * prod(shape[d] for d in node.arguments["dims_self"])


def _recurrent(node: Call) -> Dim:
    """A recurrent layer: each step multiplies every weight matrix with its input."""
    matrices = [w for w in node.arguments["params"] if len(w.type.shape) == 2]
    steps = prod(node.operands[0].type.shape[:-1])  # of a batch, or of packed sequences
    return 2 * steps * sum(w.type.numel for w in matrices)


def _measured(node: Call) -> Dim:
    """An opaque module: the flops counted in a run, in proportion to the elements of its results."""
    return round(opaque_of(node).flops) * sum(v.type.numel for v in node.results)


_ATTENTION_KERNELS = (
    "flash_attention",
    "flash_attention_for_cpu",
    "efficient_attention",
    "cudnn_attention",
    "fused_attention_overrideable",
    "attention_math",
)

_FLOPS: Mapping[str, Flops] = {
    "mm": _product("self"),
    "bmm": _product("self"),
    "matmul": _product("self"),
    "linear": _product("input"),
    "addmm": _product("mat1"),
    "addmv": _product("mat"),
    "addbmm": _product("batch1"),
    "baddbmm": _product("batch1"),
    "mv": _product("self"),
    "dot": _product("self"),
    "vdot": _product("self"),
    "inner": _product("self"),
    "linalg_matmul": _product("input"),
    "linalg_vecdot": _product("x"),
    "cdist": _product("x1"),
    "tensordot": _contracted,
    "bilinear": _bilinear,
    "einsum": _einsum,
    "_grouped_mm": _product("self"),
    "convolution": _convolution,
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    "conv_transpose1d": _convolution,
    "conv_transpose2d": _convolution,
    "conv_transpose3d": _convolution,
    "scaled_dot_product_attention": _attention,
    **{f"_scaled_dot_product_{kernel}": _attention for kernel in _ATTENTION_KERNELS},
    "paged_attention": _paged_attention,
    "quantized_linear": _product("x"),
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn_tanh": _recurrent,
    "rnn_relu": _recurrent,
    "module": _measured,
    **{f"{kind}_cell": _cell for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
}


_UNITS: Mapping[Flops, Unit] = {
    _convolution: "convolution",
    _attention: "attention",
    _paged_attention: "attention",
}


# ---- bytes to and from memory

Bytes: TypeAlias = Callable[[Call, Mapping[Value, Value]], Dim]


def _touched(node: Call, source: Mapping[Value, Value]) -> Dim:
    """The default: every operand is read once and every result written once."""
    read = dict.fromkeys(source.get(v, v) for v in node.operands)
    return sum(v.type.nbytes for v in (*read, *node.results))


def _gathered(node: Call, source: Mapping[Value, Value]) -> Dim:
    """A gather: the indices and the elements returned are read, and the result is written."""
    indices = [v for v in node.operands[1:] if not v.type.dtype.is_floating_point]
    return sum(v.type.nbytes for v in (*node.results, *node.results, *indices))


def _scattered(node: Call, source: Mapping[Value, Value]) -> Dim:
    """An update in place: the indices and the new elements are read, and these are written."""
    return sum(v.type.nbytes for v in (*node.operands[1:], node.arguments["values"]))


def _from_pages(node: Call, source: Mapping[Value, Value]) -> Dim:
    """Attention over pages: the keys and values in the pages of all rows are read once, not the pools."""
    pools = (node.arguments["keys"], node.arguments["values"])
    read = (v for v in node.operands if v not in pools)
    each = sum(prod(pool.type.shape[2:]) * pool.type.dtype.itemsize for pool in pools)
    return keys_read(node) * each + sum(v.type.nbytes for v in (*read, *node.results))


def _written(node: Call, source: Mapping[Value, Value]) -> Dim:
    """A factory that reads only the shape of its operand: the result is written."""
    return sum(v.type.nbytes for v in node.results)


_MADE_OF_A_SHAPE = ("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like")

_BYTES: Mapping[str, Bytes] = {
    **dict.fromkeys((*_MADE_OF_A_SHAPE, "new_zeros", "new_ones", "new_full", "new_empty"), _written),
    "embedding": _gathered,
    "index_select": _gathered,
    "gather": _gathered,
    "index": _gathered,
    "index_put_": _scattered,
    "paged_attention": _from_pages,
    "take": _gathered,
    "slice_copy": _gathered,
    "select_copy": _gathered,
}
