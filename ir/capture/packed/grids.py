"""Operators for what transformers' `vision_utils` makes of the grids of images, with results of sizes of shapes alone.

Theirs read grids in Python, so that a recording would hold for these grids alone.  Ours have the same arguments and
give the same numbers, from the number of all patches; where that of segments or windows is not known, boundaries
`[patches + 1]` end in repeats of the last one: segments without patches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Patches:
    """The place of each patch of several images: integers `[patches]`, in the order of the patches.

    With a grid that asks for other patches than there are, which a call refuses, indices stay within bounds.
    """

    image: Tensor
    within: Tensor  # its index among those of its image
    height: Tensor  # rows of its image
    width: Tensor

    @classmethod
    def of(cls, grid: Tensor, total: Any) -> Patches:
        """`grid`: `int64[images, 3]` of frames, rows and columns, `total`: the number of all patches."""
        counts = grid.prod(1)
        ends = counts.cumsum(0)
        index = torch.arange(total, device=grid.device)
        image = torch.searchsorted(ends, index, right=True).clamp(max=grid.shape[0] - 1)
        height, width = (grid[:, column][image].clamp(min=1) for column in (1, 2))
        return cls(image, index - (ends - counts)[image], height, width)

    @property
    def frame(self) -> Tensor:
        return self.within // (self.height * self.width)

    def places(self, merge: Any) -> tuple[Tensor, Tensor]:
        """Row and column of each patch, where `merge` rows and columns of them follow each other."""
        place = self.within % (self.height * self.width)
        row, column = (place // merge) % merge, place % merge
        block = place // (merge * merge)
        blocks = (self.width // merge).clamp(min=1)
        return block // blocks * merge + row, block % blocks * merge + column


def boundaries(starts: Tensor, times: int = 1) -> Tensor:
    """`int32[n + 1]` of the segments that begin where `starts` `bool[n]` is true, `times` as long."""
    index = torch.arange(starts.shape[0] + 1, device=starts.device)
    found = torch.where(starts, index[:-1], index[-1:]).sort().values
    return (torch.cat([found, index[-1:]]) * times).to(torch.int32)


def segments(grid: Tensor, total: Any, merge_temporal: bool = False) -> Tensor:
    """`get_vision_cu_seqlens`: the boundaries of frames, or of images, `int32[total + 1]`."""
    patches = Patches.of(grid, total)
    first = patches.within if merge_temporal else patches.within % (patches.height * patches.width)
    return boundaries(first == 0)


def positions(grid: Tensor, total: Any, merge: int | Tensor, include_temporal: bool = False) -> Tensor:
    """`get_vision_position_ids`: row and column of each patch, `int64[total, 2]`, or frame, row and column."""
    patches = Patches.of(grid, total)
    row, column = patches.places(merge[patches.image] if isinstance(merge, Tensor) else merge)
    return torch.stack([patches.frame, row, column] if include_temporal else [row, column], dim=-1)


def windows(grid: Tensor, total: Any, merge: int, side: int) -> tuple[Tensor, Tensor]:
    """`get_vision_window_index`: the order of tokens by window, and the boundaries of windows in patches.

    `side`: rows and columns of tokens in a window.
    """
    tokens = Patches.of(torch.cat([grid[:, :1], grid[:, 1:] // merge], 1), total // merge**2)
    row, column = tokens.places(1)
    down, across = ((size + side - 1) // side for size in (tokens.height, tokens.width))
    window = (tokens.frame * down + row // side) * across + column // side
    key = tokens.image * tokens.image.shape[0] + window  # an image has no more windows than there are tokens
    ordered, order = torch.sort(key, stable=True)
    return order, boundaries(pad(ordered.diff(), (1, 0), value=1) != 0, merge**2)


def taps(
    grid: Tensor, total: Any, along: Callable[..., tuple[Tensor, Tensor]], side: int, merge: int
) -> tuple[Tensor, Tensor]:
    """`get_vision_interpolation_indices_and_weights`: indices into a table of `side` rows and columns, and weights.

    Each is `[total, taps]`; `along(index, size)` gives those along an axis, for places on one of these sizes.
    """
    patches = Patches.of(grid, total)
    row, column = patches.places(merge)
    (down, heavy), (across, wide) = along(row, patches.height), along(column, patches.width)
    indices = down[:, :, None] * side + across[:, None, :]
    return indices.flatten(1), (heavy[:, :, None] * wide[:, None, :]).flatten(1)
