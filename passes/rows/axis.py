"""The place of a batch's rows in a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias

import sympy

from ir.graph import Call, Value
from ir.sizes import Dim


class Holds(Enum):
    """Contents of a tensor that say where rows lie."""

    ELEMENTS = "nothing of that kind"
    ROWS = "the number of its row, in each element"
    OWN = "its own place, in each element"
    ORDER = "the place that an element had before a sort, divided by `each`"
    INVERSE = "the place of each element in an order"
    COUNTS = "how many elements have each key"
    ENDS = "how many elements have each key or a smaller one"


class MixedError(Exception):
    """An operator lets one row see another, or is not known to keep them apart."""


@dataclass(frozen=True)
class Axis:
    """Rows lie along dimension `dim`, whose size is `before * rows * after`.

    Element `(i * rows + row) * after + j` of that dimension belongs to `row`.  In a sorted tensor element `k` was at
    `order[k]` before; `order` is the result of the sort, and `keys` what it sorted, in rising order.  `COUNTS` and
    `ENDS` have no dimension of rows.
    """

    dim: int
    before: Dim = 1
    after: Dim = 1
    order: Value | None = None
    holds: Holds = Holds.ELEMENTS
    each: int = 1
    keys: Value | None = field(default=None, compare=False)  # of an order that rises
    natural: bool = field(default=False, compare=False)  # whether elements are known to be 0 or more

    @property
    def numbers(self) -> bool:
        """Whether the elements say where rows lie."""
        return self.holds is not Holds.ELEMENTS

    @property
    def plain(self) -> bool:
        return self.before == 1 and self.after == 1

    def at(self, dim: int) -> Axis:
        return replace(self, dim=dim)

    def without_numbers(self) -> Axis:
        return replace(self, holds=Holds.ELEMENTS, each=1)


Found: TypeAlias = Axis | None
"""None: the tensor is the same whatever the rows are."""


@dataclass(frozen=True)
class Site:
    """A call, and where the rows of its operands lie."""

    call: Call
    size: sympy.Symbol  # the number of rows
    known: Mapping[Value, Axis]

    def __getitem__(self, name: str) -> Any:
        """An argument by its name in the operator's schema."""
        return self.call.arguments[name]

    def get(self, name: str) -> Any:
        return self.call.arguments.get(name)

    def axis(self, value: Any) -> Found:
        return self.known.get(value) if isinstance(value, Value) else None

    @property
    def result(self) -> Value:
        return self.call.results[0]

    def mentions(self, arg: Any) -> bool:
        """Whether the number of rows stands in a size, or in a list of sizes."""
        if isinstance(arg, (list, tuple)):
            return any(map(self.mentions, arg))
        return isinstance(arg, sympy.Basic) and self.size in arg.free_symbols


Rule: TypeAlias = Callable[[Site], "Found | Iterable[Found]"]
"""The axis of all results, or of each.  Raises MixedError."""


def require(holds: object, why: str) -> None:
    if not holds:
        raise MixedError(why)


def rank(value: Value) -> int:
    return len(value.type.shape)


def wrapped(dim: int, of: int) -> int:
    """A dimension counted from the front."""
    return dim % of if of else 0


def aligned(site: Site, operands: Iterable[Value], to: int) -> Found:
    """The one axis of operands that are broadcast to a rank of `to`, as the result has it.

    An operand without rows has a size of 1 there, or no such dimension.
    """
    axes = [axis.at(axis.dim + to - rank(v)) for v in operands if (axis := site.axis(v)) is not None]
    if not axes:
        return None
    require(all(axis == axes[0] for axis in axes), "it combines different rows")
    for value in operands:
        dim = axes[0].dim - (to - rank(value))
        if site.axis(value) is None and dim >= 0:
            require(value.type.shape[dim] == 1, "it combines rows with something that has as many elements")
    return axes[0]
