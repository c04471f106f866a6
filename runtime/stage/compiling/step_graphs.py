"""A pass over the graphs that torch.compile makes of a decoder's steps, for fewer and shorter small kernels."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.manifest.digests import file_hash
from runtime.stage.compiling import early_launch
from runtime.stage.linear import few_rows

_ATEN = torch.ops.aten
_LONG = 8192  # numbers of a row, from which on its parts are reduced first: else one program has a row of logits
_PART = 1024  # numbers of such a part, which torch has a program load at once


@cache
def fewer_kernels() -> Any:
    """The pass as torch.compile's option `post_grad_custom_pre_pass` takes it, with a key for its caches."""
    from torch._inductor.custom_graph_pass import CustomGraphPass  # takes a second to import

    class FewerKernels(CustomGraphPass):
        def __call__(self, graph: Any) -> None:
            take_largest(graph)
            multiply_single(graph)
            LongRows(graph).reduce_in_parts()

        def uuid(self) -> str:
            decide = (__file__, early_launch.__file__, few_rows.__file__)  # what torch makes of a graph
            return " ".join(file_hash(Path(file)) for file in decide)

    return FewerKernels()


def take_largest(graph: Any) -> None:
    """Have a sort of which only the first is taken, as greedy texts do, be a maximum: torch's has a dozen kernels."""
    for sort in [node for node in graph.nodes if node.target is _ATEN.topk.default]:
        x, count, dim, is_largest, _ = (*sort.args, *(-1, True, True)[len(sort.args) - 2 :])
        if sort.kwargs or not isinstance(count, int) or count != 1 or is_largest is not True:
            continue
        for one in [*sort.users]:
            with graph.inserting_before(one):
                made = (
                    _node(graph, _ATEN.argmax.default, x, dim, True)
                    if one.args[1]
                    else _node(graph, _ATEN.amax.default, x, [dim], True)
                )
            _replace(graph, one, made)
        graph.erase_node(sort)


def multiply_single(graph: Any) -> None:
    """Have products of matrices that sum up one number, as of positions and frequencies, be plain ones.

    The library's kernel begins when all before it has ended, and what is behind it when it has.
    """
    for product in [node for node in graph.nodes if node.target in (_ATEN.mm.default, _ATEN.bmm.default)]:
        if _size(product.args[0]) == 1:
            with graph.inserting_before(product):
                _replace(graph, product, _node(graph, _ATEN.mul.Tensor, *product.args))


class LongRows:
    """The long rows of a graph, of which parts are reduced first, by many programs, and then what there is of these.

    Those are maxima, where they are, and sums of exponentials, as of the logits of a step.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._parts: dict[Any, Any] = {}  # of rows, `[rows, parts, _PART]`
        self._maxima: dict[Any, Any] = {}  # of the parts of rows, `[rows, parts]`

    def reduce_in_parts(self) -> None:
        for node in [*self._graph.nodes]:
            with self._graph.inserting_before(node):
                made = self._made(node)
            if made is not None:
                _replace(self._graph, node, made)

    def _made(self, node: Any) -> Any:
        """The same from parts; None for what is no such reduction."""
        if node.kwargs:  # such as the dtype of a sum
            return None
        match node.target, node.args:
            case _ATEN.amax.default, (x, [-1], *keeps) if _is_long(x):
                return self._add(_ATEN.amax.default, self._maxima_of(x), [-1], *keeps)
            case _ATEN.argmax.default, (x, -1, *keeps) if _is_long(x):
                return self._place(x, keeps == [True])
            case _ATEN.sum.dim_IntList, (powers, [-1], *keeps) if powers.target is _ATEN.exp.default:
                if _is_less_by_row(powers.args[0]):
                    return self._sum_of_powers(*powers.args[0].args, *keeps)
        return None

    def _place(self, x: Any, keeps: bool) -> Any:
        """The place of the first maximum of rows, which is in the first part that has it."""
        part = self._add(_ATEN.argmax.default, self._maxima_of(x), -1, True)
        places = self._add(_ATEN.argmax.default, self._parts_of(x), -1)
        start = self._add(_ATEN.mul.Tensor, part, _PART)
        place = self._add(_ATEN.add.Tensor, self._add(_ATEN.gather.default, places, -1, part), start)
        return place if keeps else self._add(_ATEN.squeeze.dim, place, -1)

    def _sum_of_powers(self, x: Any, least: Any, *keeps: bool) -> Any:
        """The sum of e^(x - least): of each part by its own maximum, so that it does not wait for that of the row."""
        tops, parts = self._maxima_of(x), self._parts_of(x)
        finite = torch.finfo(x.meta["val"].dtype)  # or infinity less infinity would be no number
        least_top = self._add(_ATEN.clamp_max.default, self._add(_ATEN.clamp_min.default, tops, finite.min), finite.max)
        less = self._add(_ATEN.sub.Tensor, parts, self._add(_ATEN.unsqueeze.default, least_top, -1))
        powers = self._add(_ATEN.exp.default, less)
        sums = self._add(_ATEN.sum.dim_IntList, powers, [-1])
        shares = self._add(_ATEN.exp.default, self._add(_ATEN.sub.Tensor, tops, least))
        return self._add(_ATEN.sum.dim_IntList, self._add(_ATEN.mul.Tensor, sums, shares), [-1], *keeps)

    def _maxima_of(self, x: Any) -> Any:
        if x not in self._maxima:
            self._maxima[x] = self._add(_ATEN.amax.default, self._parts_of(x), [-1])
        return self._maxima[x]

    def _parts_of(self, x: Any) -> Any:
        if x not in self._parts:
            count, filled = -(-_size(x) // _PART), x
            if spare := count * _PART - _size(x):
                filled = self._add(_ATEN.constant_pad_nd.default, x, [0, spare], -torch.inf)
            self._parts[x] = self._add(_ATEN.reshape.default, filled, [-1, count, _PART])
        return self._parts[x]

    def _add(self, target: Any, *args: Any) -> Any:
        return _node(self._graph, target, *args)


def _is_less_by_row(node: Any) -> bool:
    """Whether a node is a matrix with long rows, less one number for each row, or for all."""
    if node.target is not _ATEN.sub.Tensor or node.kwargs or not all(isinstance(x, torch.fx.Node) for x in node.args):
        return False
    x, least = node.args
    is_one = least.meta["val"].dim() > 0 and _size(least) == 1
    return _is_long(x) and is_one and x.meta["val"].dtype == node.meta["val"].dtype  # or parts would be less exact


def _is_long(x: Any) -> bool:
    """Whether a node is a matrix with rows of so many numbers, the same for all calls."""
    value = x.meta.get("val")
    is_matrix = isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point()
    return is_matrix and isinstance(_size(x), int) and _size(x) >= _LONG


def _size(x: Any) -> Any:
    """The last one of the sizes of a node's value."""
    return x.meta["val"].shape[-1]


def _node(graph: Any, target: Any, *args: Any) -> Any:
    """A node that is added to a graph, with the value without data that torch wants it to have."""
    made = graph.call_function(target, args)
    made.meta["val"] = target(*torch.fx.map_arg(args, lambda node: node.meta["val"]))
    return made


def _replace(graph: Any, node: Any, made: Any) -> None:
    node.replace_all_uses_with(made)
    graph.erase_node(node)
