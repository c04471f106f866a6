"""A pass of torch.compile: products of few rows compute what is just before and behind them in their own kernel.

So a step has fewer small kernels, each of which takes about a microsecond in each layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.fx import Graph

from runtime.manifest.digests import file_hash
from runtime.stage.linear.few_rows import FEW_ROWS
from runtime.stage.linear.one_row import ONE_ROW

FUSES = True  # whether steps are compiled so
Node = Any  # of torch.fx, whose operands are anything to a type checker
_PRODUCT, _FUSED = FEW_ROWS._opoverload, ONE_ROW._opoverload
_ATEN, _CAST = torch.ops.aten, torch.ops.prims.convert_element_type.default
_RESHAPES = {_ATEN.reshape.default, _ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.unsqueeze.default}
_VIEWS = _RESHAPES | {_ATEN.squeeze.dim, _ATEN.select.int, _ATEN.slice.Tensor}  # where these have all elements


@cache
def fused_products() -> Any:
    """The function as torch.compile's option `post_grad_custom_pre_pass` takes it, with a key for its caches."""
    from torch._inductor.custom_graph_pass import CustomGraphPass  # takes a second to import

    class FusedProducts(CustomGraphPass):
        def __call__(self, graph: Graph) -> None:
            fuse_products(graph)

        def uuid(self) -> str:
            return file_hash(Path(__file__))

    return FusedProducts()


def fuse_products(graph: Graph) -> None:
    """Have the products in a graph of torch.compile, before it is lowered, take what is around them.

    Those of one row take norms, gates and what is added to them, others the last.
    """
    for product in [node for node in graph.nodes if node.target is _PRODUCT]:
        if _has_one_row(product):
            _fuse(graph, product, _norm_of(product.args[0]), _added_of(product), _gated_of(product))
        elif product.meta["val"].shape[0] == 1:  # sums of parts of the columns are added up by what follows
            _fuse_sum(graph, product, _added_of(product))


@dataclass(frozen=True)
class _Norm:
    """`x` with a root mean square of 1, but for `eps`, times `weight` + `more`."""

    x: Node
    weight: Node
    more: float
    eps: float


@dataclass(frozen=True)
class _Behind:
    """A sum of a product and `added`, or the product of silu of its first half and its second half."""

    result: Node
    added: Node | None


def _fuse(graph: Graph, product: Node, norm: _Norm | None, added: _Behind | None, gated: _Behind | None) -> None:
    behind = added or gated
    if norm is None and behind is None:
        return
    x, weight = product.args
    result = product if behind is None else behind.result
    more = None if behind is None else behind.added
    with graph.inserting_before(result):
        given = x if norm is None else _shaped(graph, norm.x, x)
        more = more if more is None else _shaped(graph, more, [1, len(weight.meta["val"])])
        how = (None, 0.0, 0.0) if norm is None else (norm.weight, norm.more, norm.eps)
        args = (given, weight, *how, more, gated is not None)
        made = graph.call_function(_FUSED, args)
        height = len(weight.meta["val"]) // (2 if gated else 1)
        made.meta["val"] = x.meta["val"].new_empty(1, height)
        whole = _shaped(graph, made, result)
    result.replace_all_uses_with(whole)
    _erase(graph, result)


def _fuse_sum(graph: Graph, product: Node, behind: _Behind | None) -> None:
    if behind is None:
        return
    x, weight = product.args
    with graph.inserting_before(behind.result):
        made = graph.call_function(_PRODUCT, (x, weight, _shaped(graph, behind.added, [-1, len(weight.meta["val"])])))
        made.meta["val"] = product.meta["val"]
        whole = _shaped(graph, made, behind.result)
    behind.result.replace_all_uses_with(whole)
    _erase(graph, behind.result)


def _shaped(graph: Graph, node: Node, like: Node | list[int]) -> Node:
    """A node's tensor in the shape of another's, of which at most one size is not fixed."""
    shape = [*like.meta["val"].shape] if isinstance(like, fx.Node) else like
    made = graph.call_function(_ATEN.reshape.default, (node, [size if isinstance(size, int) else -1 for size in shape]))
    made.meta["val"] = node.meta["val"].reshape(shape)
    return made


def _erase(graph: Graph, node: Node) -> None:
    """Erase a node that nobody reads, and those that nobody then reads: what leads to products has no effects."""
    if node.users or node.op != "call_function":
        return
    read = node.all_input_nodes
    graph.erase_node(node)
    for one in read:
        _erase(graph, one)


def _norm_of(x: Node) -> _Norm | None:
    """The norm that a product's input is, if nothing but products of one row reads it."""
    width = x.meta["val"].numel()
    node = _within(x)
    if node.target is not _ATEN.mul.Tensor or not all(_is_read_by_products(reader) for reader in _readers(node)):
        return None
    for factor, normed in _both_ways(node):
        weight, more = _sum_with_number(_within(factor))
        found = _root_mean_square(_within(normed), width)
        if found and weight.op in ("placeholder", "get_attr") and weight.meta["val"].shape == (width,):
            h, eps = found
            return _Norm(h, weight, more, eps) if h.meta["val"].dtype == x.meta["val"].dtype else None
    return None


def _root_mean_square(node: Node, width: int) -> tuple[Node, float] | None:
    """The tensor and the epsilon, where a node is a tensor of one row divided by the root of its mean square."""
    for h, rate in _both_ways(node, _ATEN.mul.Tensor):
        if rate.target is not _ATEN.rsqrt.default:
            continue
        mean, eps = _sum_with_number(rate.args[0])
        if mean.target is not _ATEN.mean.dim or not _is_last(mean) or h.meta["val"].numel() != width:
            continue
        square = mean.args[0]
        is_square = square.target is _ATEN.pow.Tensor_Scalar and square.args == (h, 2)
        if is_square or (square.target is _ATEN.mul.Tensor and square.args == (h, h)):
            return _within(h), eps
    return None


def _is_last(mean: Node) -> bool:
    """Whether a mean is over the last dimension, which it keeps."""
    rank = mean.args[0].meta["val"].dim()
    return len(mean.args) == 3 and [dim % rank for dim in mean.args[1]] == [rank - 1] and mean.args[2] is True


def _added_of(product: Node) -> _Behind | None:
    """The sum of a product, which nothing else reads, and a tensor as large as it and of its dtype."""
    made = _without(product)
    if made is None or len(made.users) != 1:
        return None
    (add,) = made.users
    if add.target is not _ATEN.add.Tensor or add.kwargs or not all(isinstance(one, fx.Node) for one in add.args):
        return None
    other = add.args[0] if add.args[1] is made else add.args[1]
    is_alike = other is not made and all(_like(one, product) for one in (other, add))
    is_alike &= len([size for size in add.meta["val"].shape if not isinstance(size, int)]) <= 1
    return _Behind(add, other) if is_alike else None


def _gated_of(product: Node) -> _Behind | None:
    """The gated product of the halves of a product, if nothing else reads them."""
    split = _without(product, halves=True)
    if split is None or len(split.users) != 2:
        return None
    first, second = sorted(split.users, key=lambda node: node.args[1])
    gate = _silu_of(first)
    if gate is None or len(gate.users) != 1 or len(second.users) != 1:
        return None
    (result,) = gate.users
    is_gated = result.target is _ATEN.mul.Tensor and set(result.args) == {gate, second}
    return _Behind(result, None) if is_gated and result.meta["val"].dtype == product.meta["val"].dtype else None


def _silu_of(node: Node) -> Node | None:
    """Silu of a tensor, of which nothing else is made, in its dtype."""
    if len(node.users) != 1:
        return None
    (cast,) = node.users
    if cast.target is not _CAST or len(cast.users) != 2:
        return None
    ends = [user for user in cast.users if user.target in (_ATEN.mul.Tensor, _ATEN.div.Tensor)]
    if len(ends) != 1 or len(ends[0].users) != 1:
        return None
    (back,) = ends[0].users
    is_silu = _is_silu(ends[0], cast) and back.target is _CAST
    return back if is_silu and back.meta["val"].dtype == node.meta["val"].dtype else None


def _is_silu(end: Node, x: Node) -> bool:
    """Whether a node is x / (1 + exp(-x)), or x * sigmoid(x)."""
    if end.target is _ATEN.mul.Tensor:
        return any(one is x and other.target is _ATEN.sigmoid.default for one, other in _both_ways(end))
    below, one = _sum_with_number(end.args[1]) if isinstance(end.args[1], fx.Node) else (end, 0.0)
    if end.args[0] is not x or one != 1 or below.target is not _ATEN.exp.default:
        return False
    return below.args[0].target is _ATEN.neg.default and below.args[0].args[0] is x


def _without(product: Node, halves: bool = False) -> Node | None:
    """The last view of a product, each of which alone reads the one before; or what splits it into halves."""
    node = product
    while len(node.users) == 1:
        (user,) = node.users
        if user.target is _ATEN.split_with_sizes.default:
            parts = user.args[1]
            if halves and len(parts) == 2 and parts[0] == parts[1] and _is_across(user):
                return user
            if len(parts) != 1 or len(user.users) != 1:
                break
            (user,) = user.users
        elif user.target not in _VIEWS or not _like_in_size(user, product):
            break
        node = user
    return None if halves else node


def _is_across(split: Node) -> bool:
    """Whether a tensor is split along its last dimension, which has all elements."""
    val = split.args[0].meta["val"]
    dim = split.args[2] if len(split.args) > 2 else 0
    return dim % val.dim() == val.dim() - 1 and val.shape[-1] == val.numel()


def _within(node: Node) -> Node:
    """The node of which a node is a copy in another shape or dtype, or that node itself."""
    while node.target is _CAST or (node.target in _VIEWS and _like_in_size(node, node.args[0])):
        node = node.args[0]
    return node


def _readers(node: Node) -> Iterator[Node]:
    """The nodes that read a tensor, in other shapes and dtypes too."""
    for user in node.users:
        if user.target is _CAST or user.target in _VIEWS:
            yield from _readers(user)
        else:
            yield user


def _is_read_by_products(node: Node) -> bool:
    return node.target in (_PRODUCT, _FUSED) and _has_one_row(node)


def _has_one_row(product: Node) -> bool:
    rows = product.args[0].meta["val"].shape[0]
    return isinstance(rows, int) and rows == 1


def _sum_with_number(node: Node) -> tuple[Node, float]:
    """The parts of a sum of a tensor and a number, which is 0 for others."""
    if node.target is _ATEN.add.Tensor and not node.kwargs and isinstance(node.args[1], int | float):
        return _within(node.args[0]), float(node.args[1])
    return node, 0.0


def _both_ways(node: Node, target: object = None) -> Iterator[tuple[Node, Node]]:
    """The operands of a binary operator, in either order; none of another than the `target`."""
    if (target is None or node.target is target) and all(isinstance(one, fx.Node) for one in node.args):
        one, other = node.args
        yield one, other
        yield other, one


def _like(node: Node, other: Node) -> bool:
    return _like_in_size(node, other) and node.meta["val"].dtype == other.meta["val"].dtype


def _like_in_size(node: Node, other: Node) -> bool:
    """Whether two tensors have as many elements, whatever sizes that are not fixed will be."""
    size, size_of_other = (one.meta["val"].numel() for one in (node, other))
    return _term(size) == _term(size_of_other)


def _term(size: Any) -> Any:
    """A size, as a term of those that are not fixed: sizes themselves become fixed as they are compared."""
    return size if isinstance(size, int) else size.node.expr
