"""Flops of contractions: two for each multiply-add, as torch.utils.flop_counter has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, TypeAlias

from ir.graph import Call, opaque_of
from ir.machine.cluster import Unit
from ir.paged.paged_operator import keys_read
from ir.sizes import Dim

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

FLOPS: Mapping[str, Flops] = {
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

FLOP_UNITS: Mapping[Flops, Unit] = {
    _convolution: "convolution",
    _attention: "attention",
    _paged_attention: "attention",
}
