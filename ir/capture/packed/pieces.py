"""Tensors split by lengths that are made of the values of grids, recorded as one where they are all joined again.

`torch.cat([f(x) for x in rows.split(lengths.tolist())])` is `f` of all rows where that keeps to each piece, as
attention does under a mask.  One piece stands for all; whatever else reads it, or their number, reads the lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn, overload
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor
from torch.utils._pytree import tree_leaves

from ir.capture.packed.any_of_many import AnyOfMany, OneForMany

_TOLIST: Callable[[Any], Any] = FakeTensor.tolist


def is_unknown(tensor: Any) -> bool:
    """Whether a tensor has no values while it is traced."""
    return isinstance(tensor, FakeTensor) and tensor.constant is None


@contextmanager
def pieces_as_one(least: Callable[[torch.Tensor], int]) -> Iterator[None]:
    """Give code that splits a tensor by unknown lengths one `SplitPiece` for all, inside the context.

    `least` gives the least length that lengths may have; 0 where a call cannot be checked for them.
    """

    @wraps(_TOLIST)
    def listed(tensor: Any) -> Any:
        unknown = tensor.dim() == 1 and not tensor.is_floating_point() and tensor.constant is None
        known_least = least(tensor) if unknown else 0
        return Lengths(tensor, known_least) if known_least else _TOLIST(tensor)

    with ExitStack() as patches:
        patches.enter_context(patch.object(FakeTensor, "tolist", listed))
        for place in (torch, torch.functional, torch.Tensor):
            patches.enter_context(patch.object(place, "split", _splitting(place.split)))
        yield


def _splitting(split: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(split)
    def pieces(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        lengths, dim = (*args, kwargs.get("dim", 0))[:2] if args else (None, 0)
        if not isinstance(lengths, Lengths):
            return split(tensor, *args, **kwargs)
        return OneForMany((SplitPiece(tensor, dim % tensor.dim(), lengths),))

    return pieces


class Lengths(Sequence[int]):
    """The numbers in a tensor, which nothing but a split asks for."""

    def __init__(self, tensor: torch.Tensor, least: int) -> None:
        self.tensor, self.least = tensor, least

    def read(self) -> NoReturn:
        """Read the numbers: raises what torch does for values that a trace does not know."""
        self.tensor.sum().item()  # one that is followed to what it is made of
        raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: Any) -> Any:
        self.read()

    def __len__(self) -> int:
        self.read()

    def __iter__(self) -> Iterator[int]:
        self.read()

    def mask(self, total: Any) -> torch.Tensor:
        """`bool[total, total]`: whether two of all rows are in the same piece."""
        rows = torch.arange(total, device=self.tensor.device)
        piece = torch.searchsorted(self.tensor.cumsum(0), rows, right=True)
        return piece[:, None] == piece


@dataclass(frozen=True, eq=False)
class Length:
    """The length of any piece, of which the least is known."""

    lengths: Lengths

    def __gt__(self, other: object) -> bool:
        return self >= other + 1 if isinstance(other, int) else self.lengths.read()

    def __ge__(self, other: object) -> bool:
        return (isinstance(other, int) and other <= self.lengths.least) or self.lengths.read()

    def __lt__(self, other: object) -> bool:
        return not self >= other

    def __le__(self, other: object) -> bool:
        return not self > other

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Length) and other.lengths.tensor is self.lengths.tensor
        return same or not self > other

    def __hash__(self) -> int:
        self.lengths.read()

    def __index__(self) -> int:
        self.lengths.read()


class SplitPiece(AnyOfMany):
    """Any of the tensors that another one is split into along a dimension."""

    whole: torch.Tensor
    along: int
    lengths: Lengths

    @staticmethod
    def __new__(cls, whole: torch.Tensor, along: int, lengths: Lengths) -> SplitPiece:
        piece = torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=whole.dtype, device=whole.device)
        piece.whole, piece.along, piece.lengths = whole, along, lengths
        return piece

    def __init__(self, whole: torch.Tensor, along: int, lengths: Lengths) -> None:
        super().__init__()

    def read(self) -> NoReturn:
        self.lengths.read()

    @classmethod
    def made_of_all(cls, name: str, func: Any, *args: Any, **kwargs: Any) -> Any:
        make = _ALL_AT_ONCE.get(name)
        return None if make is None else make(func, *args, **kwargs)


# ---- what is made of all pieces at once; None where that cannot be told


def _joined(func: Any, tensors: Any, dim: int = 0, **others: Any) -> torch.Tensor | None:
    """The whole tensor, where all of its pieces are joined and nothing else is."""
    parts = list(iter(tensors)) if isinstance(tensors, (list, tuple)) else []
    alone = parts[0] if parts and not parts[1:] else None
    return alone.whole if isinstance(alone, SplitPiece) and dim % alone.dim() == alone.along and not others else None


def _transposed(func: Any, piece: Any, first: Any, second: Any) -> SplitPiece | None:
    if not isinstance(first, int) or not isinstance(second, int):
        return None
    one, other = first % piece.dim(), second % piece.dim()
    along = {one: other, other: one}.get(piece.along, piece.along)
    return SplitPiece(func(piece.whole, one, other), along, piece.lengths)


def _kept(func: Any, piece: Any, *args: Any, **kwargs: Any) -> SplitPiece | None:
    """The pieces of what has the elements of the whole tensor, each in its place."""
    others = tree_leaves((args, kwargs))
    if not isinstance(piece, SplitPiece) or any(isinstance(value, SplitPiece) for value in others):
        return None
    return SplitPiece(func(piece.whole, *args, **kwargs), piece.along, piece.lengths)


def _attended(
    func: Any, query: Any, key: Any, value: Any, attn_mask: Any = None, *args: Any, **kwargs: Any
) -> SplitPiece | None:
    """Attention within each piece: of all rows, under a mask."""
    given, causal = (query, key, value), (args[1] if args[1:] else kwargs.get("is_causal", False))
    if attn_mask is not None or causal is not False or not all(isinstance(t, SplitPiece) for t in given):
        return None
    if any(t.along != t.dim() - 2 or t.lengths.tensor is not query.lengths.tensor for t in given):
        return None
    mask = query.lengths.mask(query.whole.shape[-2])
    return SplitPiece(func(*(t.whole for t in given), mask, *args, **kwargs), query.along, query.lengths)


def _shape(func: Any, piece: Any) -> tuple[Any, ...]:
    sizes = enumerate(piece.whole.shape)
    return tuple(Length(piece.lengths) if dim == piece.along else size for dim, size in sizes)


def _size(func: Any, piece: Any, dim: int | None = None) -> Any:
    return _shape(func, piece) if dim is None else _shape(func, piece)[dim]


_ALL_AT_ONCE: dict[str, Callable[..., Any]] = {
    "shape": _shape,
    "size": _size,
    "cat": _joined,
    "concat": _joined,
    "concatenate": _joined,
    "transpose": _transposed,
    "contiguous": _kept,
    "to": _kept,
    "type": _kept,
    "scaled_dot_product_attention": _attended,
}
"""By name, as others may stand in for torch's functions while it traces."""
