"""The number of elements of an input that must have a value, where the model's own code asserts it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from torch import fx

from ir.capture.program.no_ops import erase_with_users, is_checked_alone
from ir.graph import Call, Value
from ir.operators.facts import Elements, aten, rearrangement
from ir.sizes import Dim, ValueCount

HELD_ASSERTION = aten._assert_async.msg
"""The operator of an assertion that outlasts another trace."""

_ASSERTED = aten._is_all_true.default  # the reduction in `torch._check_tensor_all`

_MOVED = {Elements.SAME, Elements.RESHAPED, Elements.PERMUTED}


def hold_assertions(graph: fx.Graph) -> None:
    """Have assertions about all of a tensor read the tensor itself: one about its number is lost in another trace."""
    for node in [n for n in graph.nodes if n.target is _ASSERTED]:
        if node.users and all(map(is_checked_alone, node.users)):
            for user in list(node.users):
                erase_with_users(user)
            with graph.inserting_after(node):
                graph.call_function(HELD_ASSERTION, (node, ""))


def asserted_counts(nodes: Iterable[Call], inputs: Iterable[Value]) -> tuple[ValueCount, ...]:
    """The counts in assertions such as `(ids == 3).sum() * 64 == images.numel()`, each once.

    An export has them as a reduction that no other node reads.
    """
    made = {value: node for node in nodes for value in node.results}
    read = {value for node in made.values() for value in node.operands}
    ends = (node for node in made.values() if node.op == _ASSERTED and node.results[0] not in read)
    return tuple(dict.fromkeys(count for node in ends for count in _counts(node.operands[0], made, set(inputs))))


def _counts(asserted: Value, made: Mapping[Value, Call], inputs: set[Value]) -> Iterator[ValueCount]:
    """The count that an equality asserts; none for other conditions."""
    condition = made.get(asserted)
    if condition is None or condition.op != aten.eq.Scalar:
        return
    number, wanted = cast("tuple[Any, Dim]", condition.args)
    while (node := made.get(number)) is not None:
        match node.op, node.args:
            case aten.mul.Tensor, (Value() as number, int() as factor) if factor:
                wanted = _divided(wanted, factor)
            case aten.sum.default, (Value() as mask, *_):
                yield from _of_mask(mask, wanted, made, inputs)
                return
            case _:
                return


def _of_mask(mask: Value, count: Dim, made: Mapping[Value, Call], inputs: set[Value]) -> Iterator[ValueCount]:
    node = made.get(_origin(mask, made, casts=True))
    if node is None or node.op != aten.eq.Scalar or not isinstance(node.args[1], int):
        return
    given = _origin(node.args[0], made)
    if given in inputs and not given.type.dtype.is_floating_point:
        yield ValueCount(given.name, node.args[1], count)


def _divided(size: Dim, factor: int) -> Dim:
    return size // factor if isinstance(size, int) and size % factor == 0 else size / factor  # type: ignore[return-value]


def _origin(value: Value, made: Mapping[Value, Call], casts: bool = False) -> Value:
    """The value whose elements these are, each once, in whatever shape."""
    while (node := made.get(value)) is not None:
        moves = rearrangement(node.op)
        moved = moves is not None and (moves.elements in _MOVED or (casts and moves.elements is Elements.CAST))
        if not moved:
            return value
        value = node.operands[0]
    return value
