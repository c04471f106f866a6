"""Plain operators in place of those that torch's functional form spells out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, TensorArgument

from ir.capture.program.in_place.mutation import may_alias
from ir.graph import named_arguments
from ir.operators.facts import PART_READERS, aten, place_of_part, rearrangement

_Rule: TypeAlias = Callable[[fx.Node], "fx.Node | None"]

_LITERAL = re.compile(r"(^|\.)lifted_tensor_\d+$")  # torch.export's name of a tensor made of a number in the code


def in_plain_form(program: ExportedProgram, graphs: Iterator[fx.Graph]) -> None:
    """Rewrite, in place, the operators of graphs of a program that `run_decompositions` has made.

    A write into a part of a tensor is one operator, with what is written as its source; what a write leaves as it is
    is none.  Numbers stand in place of constants.
    """
    numbers = _numbers(program)
    for graph in graphs:
        for node in list(graph.nodes):
            if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
                _restate(node, numbers)
                stand_in = next(filter(None, (rule(node) for rule in _RULES)), None)
                if stand_in is not None:
                    node.replace_all_uses_with(stand_in)
                    _return_as(program, node.name, stand_in.name)


def _return_as(program: ExportedProgram, name: str, other: str) -> None:
    """Have the program return a value under the name of another node."""
    specs = program.graph_signature.output_specs
    for i, spec in enumerate(specs):
        if isinstance(spec.arg, TensorArgument) and spec.arg.name == name:
            specs[i] = replace(spec, arg=TensorArgument(other))


def _numbers(program: ExportedProgram) -> dict[fx.Node, int | float | bool | complex]:
    """The numbers that the model's code has made tensors of, by their placeholders."""
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    found = {}
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        if spec.kind is InputKind.CONSTANT_TENSOR and _LITERAL.search(str(spec.target)):
            tensor = program.constants[str(spec.target)]
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 0:
                found[node] = tensor.item()
    return found


# ---- other operators


def _restate(node: fx.Node, numbers: dict[fx.Node, Any]) -> None:
    """Give a node the operator that a person would have used, and numbers in place of constants."""
    match node.target:
        case aten.view.default | aten._unsafe_view.default:
            # the strides that torch expects of copysign, xlogy and floor_divide are other ones when they run, and
            # those of zero in torch 2.11: view() may fail
            node.target = aten.reshape.default
        case aten._to_copy.default if not isinstance(node.args[0], fx.Node):
            node.target, node.args = aten.full.default, ([], node.args[0])  # a vmap makes it of the number in `x + 1`
        case aten._to_copy.default if set(node.kwargs) == {"dtype"} and _dtype(node.args[0]) is not _dtype(node):
            node.target, node.args, node.kwargs = aten.to.dtype, (*node.args, node.kwargs["dtype"]), {}
        case aten.zero.default:
            node.target, node.args = aten.fill.Scalar, (node.args[0], 0)
        case aten.fill.Tensor if (number := _number(node.args[1], numbers)) is not None:
            node.target, node.args = aten.fill.Scalar, (node.args[0], number)
        case aten.index_put.default if (number := _number(node.args[2], numbers)) is not None and _fills_mask(node):
            node.target, node.args = aten.masked_fill.Scalar, (node.args[0], node.args[1][0], number)  # type: ignore[index]


def _number(node: Any, numbers: dict[fx.Node, Any]) -> Any:
    """The number that a node is, or a copy of it."""
    while isinstance(node, fx.Node) and node.target in (aten.clone.default, aten.lift_fresh_copy.default):
        node = node.args[0]
    return numbers.get(node)


def _fills_mask(node: fx.Node) -> bool:
    """Whether an index_put() writes where one mask of the tensor's own shape is True."""
    indices = node.args[1]
    assert isinstance(indices, (list, tuple))
    if len(indices) != 1 or len(node.args) > 3 or node.kwargs or not isinstance(indices[0], fx.Node):
        return False
    return _dtype(indices[0]) is torch.bool and _shape(indices[0]) == _shape(node)


# ---- values that other nodes have already


def _source_alone(node: fx.Node) -> fx.Node | None:
    """The source of a copy() that only writes read: they copy it themselves."""
    if node.target is not aten.copy.default or not isinstance(source := node.args[1], fx.Node):
        return None
    if not all(user.target in PART_READERS and user.args[0] is not node for user in node.users):
        return None
    return source if (_shape(source), _dtype(source)) == (_shape(node), _dtype(node)) else None


def _all_written(node: fx.Node) -> fx.Node | None:
    """The source of a write into all of a tensor, if it lies as that does."""
    if node.target is not aten.slice_scatter.default or not isinstance(source := node.args[1], fx.Node):
        return None
    _, start, end, step = _region(node)
    whole = start == "0" and end == "None" and step == "1"
    return source if whole and _type(source) == _type(node) else None


def _sliced_whole(node: fx.Node) -> fx.Node | None:
    """The tensor of which a node takes the whole, as Python does in `x[:, 1]`."""
    whole = node.target is aten.slice.Tensor and _region(node)[1:] == ("0", "None", "1")
    returned = any(user.op == "output" for user in node.users)
    return node.args[0] if whole and not returned else None  # type: ignore[return-value]


def _turned_back(node: fx.Node) -> fx.Node | None:
    """The tensor of which two dimensions are exchanged twice."""
    inner = node.args[0] if node.target is aten.transpose.int else None
    if not isinstance(inner, fx.Node) or inner.target is not aten.transpose.int:
        return None
    rank = node.meta["val"].dim()
    pairs = [{dim % rank for dim in n.args[1:3]} for n in (node, inner)]  # type: ignore[operator]
    returned = any(user.op == "output" for user in node.users)
    return inner.args[0] if pairs[0] == pairs[1] and not returned else None  # type: ignore[return-value]


def _unchanged(node: fx.Node) -> fx.Node | None:
    """The tensor into which a write puts what is there."""
    if node.target not in PART_READERS or not isinstance(source := node.args[1], fx.Node):
        return None
    whole = node.args[0]
    same = (
        source.target is PART_READERS[node.target] and _region(source) == _region(node) and _same(source.args[0], whole)
    )
    return whole if same and isinstance(whole, fx.Node) else None


def _same(one: Any, other: Any) -> bool:
    """Whether two nodes are one, or the same part of one tensor."""
    if one is other or not (isinstance(one, fx.Node) and isinstance(other, fx.Node)):
        return one is other
    if one.target is not other.target:
        return False
    if one.target in PART_READERS.values():
        return _region(one) == _region(other) and _same(one.args[0], other.args[0])
    moves = rearrangement(one.target)
    return moves is not None and str(one.args[1:]) == str(other.args[1:]) and _same(one.args[0], other.args[0])


def _constant_itself(node: fx.Node) -> fx.Node | None:
    """The constant of which a node makes a copy that nothing could change."""
    if node.target is not aten.clone.default or not isinstance(constant := node.args[0], fx.Node):
        return None
    kept = all(user.op == "call_function" and not may_alias(user) for user in node.users)
    return constant if kept and constant.op == "placeholder" and constant.meta["val"].dim() == 0 else None


_RULES: tuple[_Rule, ...] = (_source_alone, _all_written, _sliced_whole, _turned_back, _unchanged, _constant_itself)


def _region(node: fx.Node) -> tuple[str, ...]:
    """The part of its first operand that a node reads, or writes to."""
    assert isinstance(node.target, torch._ops.OpOverload)
    given = named_arguments(node.target, node.args, node.kwargs)
    place = place_of_part(given, given["self"].meta["val"].dim())  # type: ignore[union-attr]
    return tuple(str(v.meta["val"] if isinstance(v, fx.Node) else v) for v in place.values())


def _shape(node: Any) -> str:
    return str(tuple(node.meta["val"].shape))  # comparing symbols would add a guard


def _dtype(node: Any) -> torch.dtype:
    return node.meta["val"].dtype


def _type(node: fx.Node) -> tuple[torch.dtype, str, str]:
    return _dtype(node), _shape(node), str(node.meta["val"].stride())
