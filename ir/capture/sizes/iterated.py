"""Iteration over a dimension of any size, recorded as one tensor where all that it yields is joined again.

`torch.cat(list(images))` is `images.flatten(0, 1)` for any number of images.  Whatever else reads one of the tensors
fixes their number at that of the example, as torch.export does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from ir.capture.lazy import LazyTensor
from ir.capture.paths import is_torch_file

_UNBIND = torch.Tensor.unbind
_JOINS = {torch.cat, torch.concat, torch.concatenate, torch.stack}
_DESCRIBES = {getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim")}
_DESCRIBES |= {torch.Tensor.size, torch.Tensor.dim}


@contextmanager
def iterated_as_one(seen: Callable[[Any], object]) -> Iterator[None]:
    """Give code that takes a tensor apart `LazyPiece`s, inside the context.

    `seen` is called with each size along which all pieces are joined.
    """
    plain, length = torch.Tensor.__iter__, torch.Tensor.__len__
    listing: list[tuple[FrameType, int]] = []  # the instruction that asks for an iterator, as list() does, then len()

    @wraps(plain)
    def iterated(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
        listing.clear()
        if not _is_of_any_size(tensor, 0, sys._getframe(1)):
            return plain(tensor)
        listing.append((sys._getframe(1), sys._getframe(1).f_lasti))
        return iter(_pieces(tensor, 0, seen))

    @wraps(length)
    def expected(tensor: torch.Tensor) -> int:
        asks = [(sys._getframe(1), sys._getframe(1).f_lasti)] == listing
        listing.clear()
        return _expected(tensor.shape[0]) if asks else length(tensor)

    @wraps(_UNBIND)
    def unbound(input: torch.Tensor, dim: int = 0) -> Sequence[torch.Tensor]:  # torch's name
        is_any = isinstance(dim, int) and _is_of_any_size(input, dim, sys._getframe(1))
        return _pieces(input, dim % input.dim(), seen) if is_any else _UNBIND(input, dim)

    methods = patch.multiple(torch.Tensor, __iter__=iterated, __len__=expected, unbind=unbound)
    with methods, patch.object(torch, "unbind", unbound):
        yield


def _is_of_any_size(tensor: torch.Tensor, dim: int, asker: FrameType) -> bool:
    """Whether code that is not torch's own takes a tensor apart along a dimension whose size may change."""
    if is_torch_file(asker.f_code.co_filename) or not -tensor.dim() <= dim < tensor.dim():
        return False
    size = tensor.shape[dim]
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number and size.node.has_hint()


def _pieces(tensor: torch.Tensor, dim: int, seen: Callable[[Any], object]) -> tuple[torch.Tensor, ...]:
    return _Unbound(tensor, dim, _expected(tensor.shape[dim]), seen).pieces()


def pieces_along(tensor: torch.Tensor, dim: int, seen: Callable[[Any], object]) -> tuple[torch.Tensor, ...]:
    """The pieces of a tensor along a dimension whose size may change, computed when they are not all joined again."""
    return _pieces(tensor, dim, seen)


def _expected(size: int | torch.SymInt) -> int:
    """A size in the example; nothing is recorded of it."""
    return size if isinstance(size, int) else int(size.node.hint)


@dataclass(eq=False)
class Unbound:
    """A tensor that is taken apart along a dimension, `count` times in the example."""

    whole: torch.Tensor
    dim: int
    count: int


UnboundT = TypeVar("UnboundT", bound=Unbound)


@dataclass(eq=False)
class _Unbound(Unbound):
    """One whose pieces are not computed yet."""

    seen: Callable[[Any], object]
    _unbound: Sequence[torch.Tensor] = ()

    def pieces(self) -> tuple[torch.Tensor, ...]:
        return tuple(LazyPiece(self, place) for place in range(self.count))

    def unbound(self) -> Sequence[torch.Tensor]:
        """The tensors themselves, which fixes their number."""
        if not self._unbound:
            self._unbound = _UNBIND(self.whole, self.dim)
        return self._unbound


class LazyPiece(LazyTensor):
    """One of the tensors along a dimension, computed when anything but a join of all of them reads it."""

    of: _Unbound
    place: int

    @staticmethod
    def __new__(cls, of: _Unbound, place: int) -> LazyPiece:
        whole = of.whole
        shape = [size for d, size in enumerate(whole.shape) if d != of.dim]
        piece = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=whole.dtype, device=whole.device)
        piece.of, piece.place = of, place
        return piece

    def __init__(self, of: _Unbound, place: int) -> None:
        super().__init__()

    def computed(self) -> torch.Tensor:
        return self.of.unbound()[self.place]

    @classmethod
    def made_without(cls, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if func in _DESCRIBES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        found = _wholes(func is torch.stack, *args, **kwargs) if func in _JOINS else None
        return torch.cat(*found) if found else None


def _wholes(stacks: bool, tensors: Any, dim: int = 0, **others: Any) -> tuple[list[torch.Tensor], int] | None:
    """The arguments of torch.cat for such a join, where all pieces of tensors follow each other; else None."""
    if others or not isinstance(tensors, (list, tuple)):
        return None
    pieces = [(t.of, t.place) if isinstance(t, LazyPiece) else None for t in tensors]
    if any(pieces[first] and whole is None for first, whole in _runs(pieces)):
        return None
    wholes = {piece[0] for piece in pieces if piece is not None}
    if not stacks and any(of.whole.dim() == 1 for of in wholes):  # numbers, which torch.cat refuses
        return None
    for of in wholes:
        of.seen(of.whole.shape[of.dim])
    return parts_of_join(tensors, pieces, dim, stacks), dim


def parts_of_join(
    tensors: Sequence[torch.Tensor], pieces: Sequence[tuple[Unbound, int] | None], dim: int, stacks: bool
) -> list[torch.Tensor]:
    """Tensors that torch.cat joins to the same result as a cat of `tensors` along `dim`, or where `stacks` a stack.

    `pieces` says of each whether it is a piece of another tensor, and which; that one, in a view, takes the place of
    all of them where they follow each other.
    """
    parts = []
    for first, whole in _runs(pieces):
        alone = tensors[first]
        part = _joined(whole.whole, whole.dim, dim, stacks) if whole else alone.unsqueeze(dim) if stacks else alone
        parts.append(part)
    return parts


def _runs(pieces: Sequence[tuple[UnboundT, int] | None]) -> Iterator[tuple[int, UnboundT | None]]:
    """The places of tensors that stay alone, and of the first pieces of those that are joined from all of theirs."""
    first = 0
    while first < len(pieces):
        of = (piece := pieces[first]) and piece[0]
        run = [(of, place) for place in range(of.count)] if of else []
        is_whole = bool(run) and list(pieces[first : first + len(run)]) == run
        yield first, of if is_whole else None
        first += len(run) if is_whole else 1


def _joined(whole: torch.Tensor, unbound: int, dim: int, stacks: bool) -> torch.Tensor:
    """A view that joins the tensors along the dimension `unbound`: torch.cat, or stack, along `dim`."""
    dim %= whole.dim() if stacks else whole.dim() - 1
    order = [d for d in range(whole.dim()) if d != unbound]
    moved = whole if unbound == dim else whole.permute(*order[:dim], unbound, *order[dim:])
    return moved if stacks else moved.flatten(dim, dim + 1)
