"""The nodes of graphs that can be parts of a kernel, and those that can be one together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

from ir.fused.recorded import BY_COLUMN, FLOATS, POINTWISE
from ir.fused.row_sums import is_known_row
from ir.graph import Call, Node, Value
from ir.operators.facts import aten, aten_name
from ir.sizes import Dim

Shape: TypeAlias = Sequence[Dim]


def can_fuse(node: Call) -> bool:
    """Whether a node is an operator of which a kernel has the bits, on floats of up to 32 bits, without sizes."""
    values = (*node.operands, *node.results)
    if node.symbols or node.op._schema.is_mutable or len(node.results) != 1 or not node.operands:
        return False
    if any(v.type.dtype not in FLOATS or not v.type.shape for v in values):
        return False
    rank, given = len(node.operands[0].type.shape), node.arguments
    match node.op:
        case aten.to.dtype:
            return not given["copy"] and given["memory_format"] is None
        case aten.mean.dim:
            return _is_mean_of_rows(node.operands[0], given)
        case aten.slice.Tensor:
            several = node.results[0].type.shape[-1] != 1  # one column might be broadcast
            return given["dim"] % rank == rank - 1 and given["step"] == 1 and several
        case aten.cat.default:
            same = len({v.type.dtype for v in values}) == 1
            return same and given["dim"] % rank == rank - 1 and all(isinstance(v.type.shape[-1], int) for v in values)
        case aten.pow.Tensor_Scalar:
            return given["exponent"] == 2
        case aten.gelu.default:
            return given["approximate"] == "tanh"
    numbers = [a for a in given.values() if isinstance(a, (int, float))]
    plain = given.get("alpha", 1) == 1 and all(abs(a) < float("inf") for a in numbers)
    return plain and str(node.op).removeprefix("aten.") in POINTWISE


def _is_mean_of_rows(x: Value, given: Mapping[str, Any]) -> bool:
    columns, dims = x.type.shape[-1], given["dim"]
    last = dims is not None and [d % len(x.type.shape) for d in dims] == [len(x.type.shape) - 1]
    plain = last and given["keepdim"] and given["dtype"] is None and str(x.type.dtype) == "torch.float32"
    return plain and isinstance(columns, int) and is_known_row(columns)


def launches(node: Call) -> bool:
    """Whether a node that can be fused is a kernel by itself; others are views."""
    return node.op != aten.slice.Tensor


def is_kernel(nodes: Sequence[Call], outside: AbstractSet[Value]) -> bool:
    """Whether nodes, of which `outside` are the results that others read, can be one kernel, and are several without.

    All that is read has one shape, to which the others are broadcast, or of which they are some columns.
    """
    shapes = {tuple(v.type.shape) for node in nodes for v in node.results if v in outside}
    if len(shapes) != 1 or sum(map(launches, nodes)) < 2:
        return False
    (shape,) = shapes
    by_column = any(aten_name(node.op) in BY_COLUMN for node in nodes)
    return all(_fits(v.type.shape, shape, by_column) for node in nodes for v in (*node.operands, *node.results))


def _fits(shape: Shape, whole: Shape, by_column: bool) -> bool:
    """Whether a shape can be broadcast to another, but for its columns if those are told apart."""
    if len(shape) > len(whole):
        return False
    pairs = list(zip(reversed(shape), reversed(whole), strict=False))
    return all(size in (1, full) for size, full in pairs[by_column:])


def without_views(
    nodes: Sequence[Call], users: Mapping[Value, Sequence[Any]], kept: AbstractSet[Value]
) -> Sequence[Call]:
    """The nodes without slices that are kept, or that others read: these are views of what a kernel writes."""
    outside = read_outside(nodes, users, kept)
    rest = [node for node in nodes if launches(node) or outside.isdisjoint(node.results)]
    return nodes if len(rest) == len(nodes) else without_views(rest, users, kept)


def read_outside(nodes: Sequence[Call], users: Mapping[Value, Sequence[Any]], kept: AbstractSet[Value]) -> set[Value]:
    """The results of nodes that are kept, or that others read."""
    inside = set(nodes)
    made = (v for node in nodes for v in node.results)
    return {v for v in made if v in kept or any(user not in inside for user in users.get(v, ()))}


def is_fused(node: Node) -> bool:
    """Whether a node is marked as a part of a kernel."""
    return bool(node.kernel)
