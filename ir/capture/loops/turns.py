"""The turns of a loop over a size that may change, run by torch's scan."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import CellType, CodeType, FunctionType
from typing import Any, TypeAlias

import torch
from torch._higher_order_ops.scan import scan_op

from ir.capture.sizes.iterated import pieces_along

Bounds: TypeAlias = tuple[Any, Any]
Into: TypeAlias = Sequence[tuple[Any, int | None, bool]]
"""Lists; tensors with the dimension along which they are filled, and whether nothing else holds them."""
_PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.device, torch.Size, torch.memory_format)


class NoScan(BaseException):
    """A loop in `code` that scan does not take with the values that it has.  Models catch exceptions, not this."""

    def __init__(self, code: CodeType) -> None:
        super().__init__()
        self.code = code


@dataclass(frozen=True, eq=False)
class Turn:
    """One turn of a loop as a function of tensors alone: those handed on, the items, and what it reads besides."""

    code: CodeType
    around: Mapping[str, Any]  # the globals of the loop's function
    plain: Mapping[str, Any]  # free variables that are no tensors
    read: tuple[str, ...]  # the others, in the order of the arguments
    carried: int
    items: int

    def run(self, *given: torch.Tensor) -> list[torch.Tensor]:
        """Tensors for the next turn, then the results of this one; none lies in the memory of another."""
        carried, items, read = self._parts(given)
        free = {**self.plain, **dict(zip(self.read, read, strict=True))}
        cells = tuple(CellType(free[n]) if n in free else CellType() for n in self.code.co_freevars)
        handed, made = FunctionType(self.code, dict(self.around), closure=cells)(carried, items)
        results = list[torch.Tensor]()
        for tensor in (*handed, *made):
            same = any(tensor is other for other in (*given, *results))
            results.append(tensor.clone() if same else tensor)
        return results

    def _parts(self, given: Sequence[torch.Tensor]) -> tuple[Sequence[torch.Tensor], ...]:
        behind = self.carried + self.items
        return given[: self.carried], given[self.carried : behind], given[behind:]


@dataclass
class Turns:
    """Runs loops in functions whose code was rewritten: the global name in that code stands for this.

    `original` has the code of each function before; a turn that is one with an earlier one is the same object.
    """

    original: Mapping[CodeType, CodeType]
    _known: dict[Any, Turn] = field(default_factory=dict)

    def is_of_any_size(self, bounds: Bounds) -> bool:
        """Whether a range begins at 0 and ends at a size that may change."""
        start, stop = bounds
        return isinstance(start, int) and start == 0 and is_any_size(stop)

    def run(
        self,
        turn: FunctionType,
        carried: tuple[Any, ...],
        items: Sequence[tuple[Any, int]],
        into: Into,
        bounds: Bounds,
    ) -> tuple[torch.Tensor, ...]:
        """Tensors that the last turn hands on, then those that all turns fill; lists have got what turns append.

        Raises NoScan.
        """
        code, count = self.original[sys._getframe(1).f_code], bounds[1]
        read = {
            n: c.cell_contents
            for n, c in zip(turn.__code__.co_freevars, turn.__closure__ or (), strict=True)
            if _is_bound(c)
        }
        filled = {id(target): _TypeOf(target) for target, dim, _ in into if dim is not None}
        read = {name: filled.get(id(value), value) for name, value in read.items()}
        given = [*carried, *(tensor for tensor, _ in items)]
        if not all(isinstance(t, torch.Tensor) for t in given) or not _can_be_filled(into, [*given, *read.values()]):
            raise NoScan(code)
        tensors = {name: value for name, value in read.items() if isinstance(value, (torch.Tensor, torch.SymInt))}
        plain = {name: value for name, value in read.items() if name not in tensors}
        if not all(isinstance(value, (*_PLAIN, _TypeOf)) for value in plain.values()) or not count >= 1:
            raise NoScan(code)
        along = [_first(tensor, dim, count) for tensor, dim in items]
        values = tuple((n, repr(v)) for n, v in plain.items())
        same = (turn.__code__, id(turn.__globals__), values, tuple(tensors), len(carried), len(along))
        known = self._known.setdefault(
            same, Turn(turn.__code__, turn.__globals__, plain, tuple(tensors), len(carried), len(along))
        )
        try:
            results = scan_op(known.run, list(carried), along, tuple(tensors.values()))
        except Exception as e:  # whatever torch says of a function that is none of tensors alone
            raise NoScan(code) from e
        versions = [tensor._version for tensor in results]

        def joined(_: Any) -> None:
            if [tensor._version for tensor in results] != versions:  # those that the list has in the model, too
                raise NoScan(code)

        filled = list[torch.Tensor]()
        for (target, dim, is_new), tensor in zip(into, results[len(carried) :], strict=True):
            if dim is None:
                target.extend(pieces_along(tensor, 0, joined))
            elif tensor.dim() != target.dim():
                raise NoScan(code)
            else:
                filled.append(_filled(target, tensor.movedim(0, dim), dim, is_new))
        return (*results[: len(carried)], *filled)


class _TypeOf:
    """The type of a tensor that turns fill, which is all that they may read of it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.dtype, self.device, self.shape, self.ndim = tensor.dtype, tensor.device, tensor.shape, tensor.ndim

    def __repr__(self) -> str:
        return f"{self.dtype} {self.device} {self.shape}"


def is_any_size(size: Any) -> bool:
    """Whether a size may change, and is known in the example."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number and size.node.has_hint()


def _is_bound(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _first(tensor: torch.Tensor, dim: int, count: Any) -> torch.Tensor:
    """The first `count` slices along a dimension, which comes first."""
    part = tensor if _same_size(tensor.shape[dim], count) else tensor.narrow(dim, 0, count)
    dim %= tensor.dim()
    return part.permute(dim, *(d for d in range(tensor.dim()) if d != dim)) if dim else part


def _can_be_filled(into: Into, read: Sequence[Any]) -> bool:
    """Whether there are lists, and tensors in memory of which the turns read nothing, none of which is another's."""
    taken = {("tensor", t.untyped_storage()._cdata) for t in read if isinstance(t, torch.Tensor)}
    for target, dim, _ in into:
        if dim is None and type(target) is list:
            place = ("list", id(target))
        elif dim is not None and isinstance(target, torch.Tensor):
            place = ("tensor", target.untyped_storage()._cdata)
        else:
            return False
        if place in taken:
            return False
        taken.add(place)
    return True


def _filled(target: torch.Tensor, made: torch.Tensor, dim: int, is_new: bool) -> torch.Tensor:
    """A tensor whose first slices along a dimension are those of another."""
    if is_new and all(map(_same_size, target.shape, made.shape)):
        return made.to(target.dtype).contiguous()
    whole = _same_size(target.shape[dim], made.shape[dim])
    (target if whole else target.narrow(dim, 0, made.shape[dim])).copy_(made)
    return target


def _same_size(one: Any, other: Any) -> bool:
    """Whether sizes are the same; where both may change, without a condition on them."""
    if isinstance(one, torch.SymInt) and isinstance(other, torch.SymInt):
        return one.node.expr == other.node.expr
    return bool(one == other)
