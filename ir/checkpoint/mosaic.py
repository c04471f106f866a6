"""Tensors joined from others, each of which is read when its place is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import torch

from ir.checkpoint.tensors import Tensorlike, boxes_in_order, replaced


@dataclass(frozen=True, eq=False)
class Tile:
    """A tensor and the box of a mosaic that it fills; the box may have further dimensions of size 1."""

    source: Tensorlike
    shape: tuple[int, ...]
    at: tuple[int, ...]  # the box's first corner


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A tensor whose boxes are other tensors.  In blocks it holds one block of one of them at a time, where it can."""

    shape: tuple[int, ...]
    tiles: tuple[Tile, ...]

    @classmethod
    def of(cls, source: Tensorlike) -> Mosaic:
        """A tensor as a mosaic."""
        if isinstance(source, Mosaic):
            return source
        return cls(source.shape, (Tile(source, source.shape, (0,) * len(source.shape)),))

    @classmethod
    def stacked(cls, sources: Sequence[Tensorlike], dim: int) -> Mosaic:
        """Tensors along a new dimension."""

        def with_dim(tile: Tile) -> Tile:
            shape, at = (*tile.shape[:dim], 1, *tile.shape[dim:]), (*tile.at[:dim], 0, *tile.at[dim:])
            return Tile(tile.source, shape, at)

        parts = [cls.of(source) for source in sources]
        shape = (*parts[0].shape[:dim], 1, *parts[0].shape[dim:])
        return cls.concatenated([cls(shape, tuple(map(with_dim, part.tiles))) for part in parts], dim)

    @classmethod
    def concatenated(cls, sources: Sequence[Tensorlike], dim: int) -> Mosaic:
        """Tensors one after the other in a dimension."""
        tiles, end = list[Tile](), 0
        for part in map(cls.of, sources):
            moved = (replace(tile, at=replaced(tile.at, dim, tile.at[dim] + end)) for tile in part.tiles)
            tiles += [tile for tile in moved if prod(tile.shape)]
            end += part.shape[dim]
        return cls(replaced(sources[0].shape, dim, end), tuple(sorted(tiles, key=lambda tile: tile.at)))

    @property
    def dtype(self) -> torch.dtype:
        return self.tiles[0].source.dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        target = torch.empty(self.shape, dtype=dtype)
        for tile in self.tiles:
            box = tuple(slice(a, a + n) for a, n in zip(tile.at, tile.shape, strict=True))
            target[box].copy_(tile.source.read(dtype).view(tile.shape))
        return target

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order: tile after tile where each is contiguous, else the whole."""
        if boxes_in_order(self.shape, [(tile.shape, tile.at) for tile in self.tiles]):
            for tile in self.tiles:
                yield from tile.source.blocks(dtype)
        else:
            yield self.read(dtype).flatten()

    def split(self, dim: int, size: int) -> list[Mosaic] | None:
        """Parts of `size` in a dimension, or None where a tile lies in two of them."""
        parts = list[Mosaic]()
        for first in range(0, self.shape[dim], size):
            end = min(first + size, self.shape[dim])
            inside = [tile for tile in self.tiles if first <= tile.at[dim] < end]
            if any(tile.at[dim] + tile.shape[dim] > end for tile in inside):
                return None
            moved = [replace(tile, at=replaced(tile.at, dim, tile.at[dim] - first)) for tile in inside]
            parts.append(Mosaic(replaced(self.shape, dim, end - first), tuple(moved)))
        return parts if sum(len(part.tiles) for part in parts) == len(self.tiles) else None
