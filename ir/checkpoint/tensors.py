"""Tensors on disk, as pieces: byte ranges of files that each fill a box of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import torch

from ir.errors import SourceError

BLOCK_ELEMENTS = 1 << 22
"""Elements read at once."""


class Tensorlike(Protocol):
    """A tensor that can be read whole or a block at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in storage."""
        ...

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        """The tensor in memory of its own, converted to `dtype`."""
        ...

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order, as flat tensors of `dtype`."""
        ...


_Base = TypeVar("_Base", bound=Tensorlike)


class LikeBase(Generic[_Base]):
    """The shape and dtype of a tensor that is made of another one, `base`, and has its own."""

    base: _Base

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype


Change: TypeAlias = Literal["none", "negative", "conjugate"]
_CHANGED: Mapping[Change, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda tensor: tensor,
    "negative": torch.neg,
    "conjugate": lambda tensor: tensor.conj().resolve_conj(),
}


@dataclass(frozen=True)
class Piece:
    """A strided view of a file, and the box of a tensor that it fills."""

    file: Path
    start: int  # byte of the view's first element
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements
    at: tuple[int, ...]  # the box's first corner
    change: Change = "none"  # what torch's negative or conjugate bit makes of the elements

    @property
    def span(self) -> int:
        """Number of elements in the file from the first to the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))

    @property
    def plain(self) -> bool:
        """Whether the elements are those in the file, in their order."""
        if self.change != "none":
            return False
        steps = zip(self.shape, self.stride, contiguous(self.shape), strict=True)
        return all(n == 1 or step == dense for n, step, dense in steps) or 0 in self.shape

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.at, self.shape, strict=True))

    def read(self) -> torch.Tensor:
        flat = torch.empty(self.span, dtype=self.dtype)
        read_into(self.file, self.start, flat)
        return _CHANGED[self.change](flat.as_strided(self.shape, self.stride))

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements of a contiguous piece, in order."""
        for first in range(0, self.span, BLOCK_ELEMENTS):
            flat = torch.empty(min(BLOCK_ELEMENTS, self.span - first), dtype=self.dtype)
            read_into(self.file, self.start + first * self.dtype.itemsize, flat)
            yield flat.to(dtype)


@dataclass(frozen=True)
class Stored:
    """A tensor on disk: the pieces that tile it.

    `versions`: of the formats of the modules around it, the outermost first, where a state dict says these.
    """

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    versions: tuple[int | None, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def whole(
        cls,
        file: Path,
        start: int,
        dtype: torch.dtype,
        shape: Sequence[int],
        stride: Sequence[int] | None = None,
        change: Change = "none",
    ) -> Stored:
        """A tensor in one byte range."""
        size = tuple(shape)
        steps = contiguous(size) if stride is None else tuple(stride)
        return cls(size, (Piece(file, start, dtype, size, steps, (0,) * len(size), change),))

    @property
    def is_as_stored(self) -> bool:
        """Whether the elements are those in the files, with no bit that changes them."""
        return all(piece.change == "none" for piece in self.pieces)

    @property
    def dtype(self) -> torch.dtype:
        return self.pieces[0].dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        target = torch.empty(self.shape, dtype=dtype)
        for piece in self.pieces:
            view = target[piece.box]
            if piece.plain and piece.dtype == dtype and view.is_contiguous():
                read_into(piece.file, piece.start, view)
            else:
                view.copy_(piece.read())
        return target

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        if not self._in_order:
            yield self.read(dtype).flatten()
            return
        for piece in self.pieces:
            yield from piece.blocks(dtype)

    def narrowed(self, dim: int, first: int, length: int) -> Stored:
        """The part of the tensor at the indices from `first` on in a dimension."""
        pieces = list[Piece]()
        for p in self.pieces:
            low, high = max(p.at[dim], first), min(p.at[dim] + p.shape[dim], first + length)
            if low < high:
                start = p.start + (low - p.at[dim]) * p.stride[dim] * p.dtype.itemsize
                corner, size = replaced(p.at, dim, low - first), replaced(p.shape, dim, high - low)
                pieces.append(replace(p, start=start, shape=size, at=corner))
        return Stored(replaced(self.shape, dim, length), tuple(pieces))

    @property
    def _in_order(self) -> bool:
        """Whether the pieces, one after the other, are the tensor's elements in order."""
        return all(p.plain for p in self.pieces) and boxes_in_order(self.shape, [(p.shape, p.at) for p in self.pieces])


@dataclass(frozen=True)
class Spread(LikeBase[Stored]):
    """A tensor on disk whose elements are to lie in memory with other strides, as those that are channels last."""

    base: Stored
    stride: tuple[int, ...]

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=dtype).copy_(self.base.read(dtype))

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        yield from self.base.blocks(dtype)


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor in memory."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return self.tensor.detach().to(dtype)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        yield self.read(dtype).flatten()


def replaced(items: tuple[int, ...], place: int, item: int) -> tuple[int, ...]:
    """The items with another one in a place."""
    return (*items[:place], item, *items[place + 1 :])


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor, in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def read_into(file: Path, start: int, target: torch.Tensor) -> None:
    """Fill a contiguous tensor with bytes of a file.

    It uses reads, not a memory map, whose pages would count as this process's memory.
    Raises SourceError where the file cannot be read or is too short.
    """
    rest = byte_view(target)
    try:
        with file.open("rb", buffering=0) as f:
            f.seek(start)
            while rest and (count := f.readinto(rest)):
                rest = rest[count:]
    except OSError as e:
        raise SourceError(f"cannot read {file}: {e.strerror}") from e
    if rest:
        raise SourceError(f"{file} ended {len(rest)} bytes too early: it changed while it was read")


def byte_view(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    if not tensor.numel():
        return memoryview(b"")
    return tensor.view(-1).view(torch.uint8).numpy().data


def boxes_in_order(shape: Sequence[int], boxes: Sequence[tuple[Sequence[int], Sequence[int]]]) -> bool:
    """Whether boxes (size, first corner) of a tensor, one after the other, have all of its elements in order."""
    end = 0
    for size, corner in boxes:
        if _offset(size, corner, shape) != end:
            return False
        end += prod(size)
    return end == prod(shape)


def _offset(size: Sequence[int], corner: Sequence[int], shape: Sequence[int]) -> int:
    """The index of a box's first element in the tensor, -1 where the box is not contiguous in it."""
    cut = next((i for i, n in enumerate(size) if n != 1), len(shape))
    if tuple(size[cut + 1 :]) != tuple(shape[cut + 1 :]):
        return -1
    return sum(a * step for a, step in zip(corner, contiguous(shape), strict=True))
