"""Facts about torch's operators that their schemas do not tell: which ones rearrange elements, and in whose memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch._ops import OpOverload

aten = torch.ops.aten

_NO_END = 2**62  # a slice that ends here or behind has all that is left


class Elements(Enum):
    """The elements of a result, seen from those of the first operand."""

    SAME = auto()  # each at its index
    CAST = auto()  # each at its index, perhaps in another dtype
    RESHAPED = auto()  # all of them in their order, in another shape
    EXPANDED = auto()  # repeated along dimensions of size 1
    REPEATED = auto()  # repeated along any dimension
    PERMUTED = auto()  # the dimensions in another order
    SLICED = auto()  # a range of one dimension
    SELECTED = auto()  # one index of one dimension


class Memory(Enum):
    """The memory of a result."""

    SHARED = auto()  # that of the first operand
    EITHER = auto()  # that of the first operand where its strides allow it, or its own
    OWN = auto()


@dataclass(frozen=True)
class Rearrangement:
    """An operator that computes nothing: its result holds elements of its first operand."""

    elements: Elements
    memory: Memory

    @property
    def may_alias(self) -> bool:
        """Whether the result may lie in the memory of the first operand."""
        return self.memory is not Memory.OWN

    @property
    def is_alias(self) -> bool:
        """Whether the result is the first operand: its elements, strides and memory."""
        return self.elements is Elements.SAME and self.memory is Memory.SHARED

    @property
    def is_identity_if_type_stays(self) -> bool:
        """Whether a result of the operand's shape and dtype has the operand's elements, each at its index."""
        return self.elements is not Elements.PERMUTED


def aten_name(op: object) -> str:
    """The name of one of torch's own operators, which all of its overloads have; "" for an operator of others."""
    return op._opname if isinstance(op, OpOverload) and op.namespace == "aten" else ""


def rearrangement(op: object) -> Rearrangement | None:
    """The way in which an operator rearranges the elements of its first operand; None for any other operator."""
    return None if op is aten.view.dtype else REARRANGEMENTS.get(aten_name(op))  # view(dtype) reads the bits


REARRANGEMENTS: Mapping[str, Rearrangement] = {
    "alias": Rearrangement(Elements.SAME, Memory.SHARED),
    "detach": Rearrangement(Elements.SAME, Memory.SHARED),
    "contiguous": Rearrangement(Elements.SAME, Memory.EITHER),
    "clone": Rearrangement(Elements.SAME, Memory.OWN),
    "lift_fresh_copy": Rearrangement(Elements.SAME, Memory.OWN),
    "to": Rearrangement(Elements.CAST, Memory.EITHER),
    "type_as": Rearrangement(Elements.CAST, Memory.EITHER),
    "_to_copy": Rearrangement(Elements.CAST, Memory.OWN),
    "view": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "view_as": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "_unsafe_view": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "unflatten": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "squeeze": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "unsqueeze": Rearrangement(Elements.RESHAPED, Memory.SHARED),
    "reshape": Rearrangement(Elements.RESHAPED, Memory.EITHER),
    "flatten": Rearrangement(Elements.RESHAPED, Memory.EITHER),
    "expand": Rearrangement(Elements.EXPANDED, Memory.SHARED),
    "expand_as": Rearrangement(Elements.EXPANDED, Memory.SHARED),
    "broadcast_to": Rearrangement(Elements.EXPANDED, Memory.SHARED),
    "repeat": Rearrangement(Elements.REPEATED, Memory.OWN),
    "permute": Rearrangement(Elements.PERMUTED, Memory.SHARED),
    "transpose": Rearrangement(Elements.PERMUTED, Memory.SHARED),
    "slice": Rearrangement(Elements.SLICED, Memory.SHARED),
    "select": Rearrangement(Elements.SELECTED, Memory.SHARED),
}
"""By the name of the operator, which all of its overloads have."""

PART_WRITES = {"as_strided_scatter", "diagonal_scatter", "index_put", "select_scatter", "slice_scatter"}
"""Names of operators that return their first operand with other elements in a part of it."""

NEVER_VIEWS = {"linear", "conv1d", "conv2d", "conv3d", "batch_norm", "layer_norm", "group_norm", "instance_norm"}
NEVER_VIEWS |= {"scaled_dot_product_attention", "softmax", "log_softmax", "gelu", "silu", "matmul"}
"""Names of operators that are made of others, and of which no result lies in the memory of an operand."""


def is_composite(op: OpOverload) -> bool:
    """Whether an operator is made of others, which its schema tells nothing of."""
    return op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


PART_READERS: Mapping[Any, OpOverload] = {
    aten.slice_scatter.default: aten.slice.Tensor,
    aten.select_scatter.default: aten.select.int,
    aten.diagonal_scatter.default: aten.diagonal.default,
    aten.as_strided_scatter.default: aten.as_strided.default,
}
"""By the operator that writes into a part of a tensor: the one that reads this part."""


def place_of_part(given: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The arguments that place a part in a tensor of `rank` dimensions, alike where the same part is read or written.

    `given`: all arguments of the operator.
    """
    place = {name: value for name, value in given.items() if name not in ("self", "src")}
    for name, value in place.items():
        if name.startswith("dim") and isinstance(value, int):
            place[name] = value % rank
        if name == "end" and isinstance(value, int) and value >= _NO_END:
            place[name] = None
    return place | ({"start": place["start"] or 0} if "start" in place else {})


BY_ADDRESS = frozenset({aten.as_strided.default, aten.as_strided_copy.default, aten.as_strided_scatter.default})
"""Operators whose result depends on how their operand lies in memory, not on its elements alone."""
