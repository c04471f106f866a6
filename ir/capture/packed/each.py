"""Tensors of each of several images, whose sizes are values of an input: one stands for all of them.

It is a map from the places of an image to rows of a tensor of all, so that what slices, turns, cuts and joins images
one by one is recorded as one gather, where they are joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

ImagePlaces: TypeAlias = Sequence[Tensor]
"""The index of each row along each dimension but that of channels: `int64[rows]` each."""

At: TypeAlias = Callable[[Tensor, ImagePlaces], Tensor]
"""What is at places of images `int64[rows]`: `[rows, channels]`, or `[rows]`."""


@dataclass(frozen=True, eq=False)
class EachNumber:
    """A whole number of each image: `int64[images]`.

    `by`: where it is the product of numbers of the input, each over a divisor, these by column.  `most`: what none is
    above; None: not known.
    """

    values: Tensor
    by: Mapping[int, int] = field(default_factory=dict)
    most: Any = None

    def __mul__(self, other: Any) -> EachNumber:
        if not isinstance(other, EachNumber):
            return EachNumber(self.values * other, {}, None if self.most is None else self.most * other)
        apart = self.by and other.by and not self.by.keys() & other.by.keys()
        most = None if self.most is None or other.most is None else self.most * other.most
        return EachNumber(self.values * other.values, {**self.by, **other.by} if apart else {}, most)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> EachNumber:
        if not isinstance(other, int) or other < 1:
            self.read()
        by = {column: divisor * other for column, divisor in self.by.items()} if len(self.by) == 1 else {}
        return EachNumber(self.values // other, by, None if self.most is None else self.most // other)

    def at_most(self, size: Any) -> EachNumber:
        """The number, or `size` where it is more."""
        return EachNumber(self.values.clamp(max=size), self.by, size)

    def read(self, *_: Any) -> NoReturn:
        """Read the numbers: raises what torch does for values that a trace does not know."""
        self.values.sum().item()  # one that is followed to what it is made of
        raise DataDependentOutputException(torch.ops.aten._local_scalar_dense.default)

    __add__ = __radd__ = __sub__ = __rsub__ = __rfloordiv__ = __mod__ = __truediv__ = __rtruediv__ = read
    __index__ = __int__ = __float__ = __bool__ = __hash__ = __eq__ = __lt__ = __le__ = __gt__ = __ge__ = read  # type: ignore[assignment]


class EachRow(Sequence[EachNumber]):
    """The numbers of each image in an input `[images, columns]` without values."""

    def __init__(self, sizes: Tensor) -> None:
        self._numbers = tuple(EachNumber(column, {i: 1}) for i, column in enumerate(sizes.unbind(1)))

    def __getitem__(self, index: Any) -> Any:
        return self._numbers[index]

    def __len__(self) -> int:
        return len(self._numbers)


def extent_of(dim: Any, image: Tensor) -> Any:
    """A size of the images of some rows: `int64[rows]`, at least 1, or the number of all."""
    return dim.values[image].clamp(min=1) if isinstance(dim, EachNumber) else dim


def unravelled(index: Tensor, dims: Sequence[Any], image: Tensor) -> list[Tensor]:
    """The places along `dims` of an index into all of them."""
    places: list[Tensor] = []
    for dim in reversed(dims[1:]):
        extent = extent_of(dim, image)
        places.insert(0, index % extent)
        index = index // extent
    return [index, *places] if dims else []


def ravelled(places: ImagePlaces, dims: Sequence[Any], image: Tensor) -> Tensor:
    """The index into all of `dims` of places along them."""
    index = torch.zeros_like(image)
    for place, dim in zip(places, dims, strict=True):
        index = index * extent_of(dim, image) + place
    return index


@dataclass(frozen=True)
class ImageMap:
    """The elements of a tensor of each image, by their places.

    `dims`: its sizes; `channel`: the dimension whose elements lie in rows, None if there is none; `total`: as many
    rows as all images have together, at most; None: not known.
    """

    dims: tuple[Any, ...]
    channel: int | None
    at: At
    total: Any = None

    @property
    def axes(self) -> list[int]:
        """The dimensions that are no channels."""
        return [d for d in range(len(self.dims)) if d != self.channel]

    def permuted(self, order: Sequence[int]) -> ImageMap:
        order = [d % len(self.dims) for d in order]
        channel = None if self.channel is None else order.index(self.channel)
        kept = [d for d in order if d != self.channel]

        def at(image: Tensor, places: ImagePlaces) -> Tensor:
            by_dim = dict(zip(kept, places, strict=True))
            return self.at(image, [by_dim[d] for d in self.axes])

        return ImageMap(tuple(self.dims[d] for d in order), channel, at, self.total)

    def viewed(self, shape: Sequence[Any]) -> ImageMap | None:
        """The same elements in another shape; None where channels would be cut, or lie elsewhere."""
        real = [d for d in range(len(self.dims)) if d == self.channel or not is_one(self.dims[d])]
        channels = None if self.channel is None else self.dims[self.channel]
        ends = {0: 0, len(real) - 1: len(shape) - 1}  # where channels come first or last, they do so in both
        channel = None if self.channel is None else ends.get(real.index(self.channel))
        if self.channel is not None and (channel is None or (shape[channel] != channels and shape[channel] != -1)):
            return None
        old = [self.dims[d] for d in real if d != self.channel]
        new = [d for i, d in enumerate(shape) if i != channel]
        if any(isinstance(d, int) and d == -1 for d in new):
            if len(new) != 1:
                return None
            new = [product_of(old)]
        dims = list(new)
        if channel is not None:
            dims.insert(channel, channels)

        def at(image: Tensor, places: ImagePlaces) -> Tensor:
            found = iter(unravelled(ravelled(places, new, image), old, image))
            return self.at(image, [next(found) if d in real else torch.zeros_like(image) for d in self.axes])

        return ImageMap(tuple(dims), channel, at, self.total)

    def cut(self, dim: int, stop: Any) -> ImageMap:
        """The places before `stop` along a dimension."""
        size = self.dims[dim]
        end = stop if isinstance(size, EachNumber) else stop.at_most(size)
        return ImageMap((*self.dims[:dim], end, *self.dims[dim + 1 :]), self.channel, self.at, self.total)

    def in_blocks(self, side: int) -> ImageMap:
        """Blocks of `side` rows and columns of `[channels, rows, columns]`, as rows of more channels, one a column."""
        channels, rows, columns = self.dims

        def at(image: Tensor, places: ImagePlaces) -> Tensor:
            row, column = unravelled(places[0], (rows // side, columns // side), image)
            steps = [(i, j) for i in range(side) for j in range(side)]
            found = [self.at(image, (row * side + i, column * side + j)) for i, j in steps]
            return torch.stack(found, -1).flatten(1)

        dims = channels * side**2, (rows // side) * (columns // side)
        return ImageMap(dims, 0, at, None if self.total is None else self.total // side**2)

    def packed(self, images: Any) -> tuple[Tensor, Any]:
        """Rows of all images one after the other, `[total, channels]`, and their number in each.

        Where there are fewer, others follow.
        """
        [axis] = self.axes
        count, total = self.dims[axis], self.total
        if total is None:
            total = images * count.most
        ends = count.values.cumsum(0)
        index = torch.arange(total, device=ends.device)
        image = torch.searchsorted(ends, index, right=True).clamp(max=images - 1)
        within = torch.where(index < ends[-1], index - (ends - count.values)[image], 0)
        return self.at(image, [within]), total


def is_one(dim: Any) -> bool:
    return isinstance(dim, int) and dim == 1


def product_of(dims: Sequence[Any]) -> Any:
    return prod(dims[1:], start=dims[0]) if dims else 1


def of_all_images(whole: Tensor) -> ImageMap:
    """One image of `[images, channels, …]`."""
    last = whole.movedim(1, -1)
    total = whole.shape[0] * prod(whole.shape[2:])
    return ImageMap(tuple(whole.shape[1:]), 0, lambda image, places: last[(image, *places)], total)


def of_packed_rows(whole: Tensor, counts: EachNumber) -> ImageMap:
    """The rows of one image of `[rows, channels]`, where those of others lie before and behind them."""
    starts = counts.values.cumsum(0) - counts.values
    most = whole.shape[0] - 1

    def at(image: Tensor, places: ImagePlaces) -> Tensor:
        return whole[(starts[image] + places[0]).clamp(max=most)]

    return ImageMap((counts, whole.shape[1]), 1, at, whole.shape[0])


def indices_below(count: EachNumber) -> ImageMap:
    """The indices below a number of each image."""
    return ImageMap((count,), None, lambda image, places: places[0])
