"""TextRows: where the tokens of a batch lie in the pools."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_TRASH = 0  # the page that belongs to no text: padding is written there, and masked where it is read


@dataclass(frozen=True, eq=False)
class TextRows:
    """The pages and positions of the rows of a batch; a row is a text with new tokens at its end.

    A decoder without transformers makes them of its arguments with `of`, stores keys and values with `put`, and attends
    under `mask`.
    """

    table: Tensor  # int64[batch, pages]: the pages of each row in order of positions, 0 behind the last
    first: Tensor | int  # int64[batch]: the position of the first token in the table, which a window moves; or 0
    positions: Tensor  # int64[batch, seq]: of the new tokens; -1 for padding, which is on the left
    page: int  # tokens a page

    @classmethod
    def of(cls, input_ids: Tensor, lengths: Tensor, counts: Tensor, table: Tensor, page: int) -> TextRows:
        """The rows of a step: `input_ids` `[batch, seq]`, `lengths` and `counts` `[batch]`, `table` `[batch, pages]`.

        `lengths` are the tokens that rows have in the pools, `counts` their new ones, at the end of `input_ids`.
        """
        return cls(table, 0, positions_of(input_ids, lengths, counts), page)

    def for_all_layers(self) -> TextRows:
        """The same, with what layers share computed now, so that the first layer's code is like that of the others."""
        _ = self.where, self.pages, self.begin
        return self

    @property
    def width(self) -> Any:
        """The number of keys that each row sees, those of padding included: `pages * page`."""
        return self.table.shape[1] * self.page

    @cached_property
    def where(self) -> tuple[Tensor, Tensor]:
        """The page of each new token, and the place in it: `[batch, seq]` both, computed once for all layers."""
        place = self.positions - self.first[:, None] if isinstance(self.first, Tensor) else self.positions
        page = self.table.gather(1, (place // self.page).clamp(min=0))
        page = torch.where(self.positions >= 0, page, _TRASH)
        place = place % self.page
        return page, place

    @cached_property
    def begin(self) -> Tensor:
        """`int64[batch, 1]`: the position of the first column, -1 where that is padding."""
        return self.positions[:, :1]

    @cached_property
    def asked(self) -> Tensor:
        """`int64[batch, seq]`: the last position that each new token sees; padding sees one, or it would be NaN."""
        if isinstance(self.first, Tensor):
            last = torch.maximum(self.positions, self.first[:, None])
        else:
            last = self.positions.clamp(min=0)
        return last

    @cached_property
    def mask(self) -> Tensor:
        """`bool[batch, 1, seq, width]`: the keys at or before the position of each new token."""
        keys = torch.arange(self.width, device=self.table.device)[None]
        if isinstance(self.first, Tensor):
            keys = keys + self.first[:, None]
        return (keys[:, None, :] <= self.asked[:, :, None])[:, None]

    def put(self, pool: Tensor, new: Tensor) -> Tensor:
        """Store `new` `[batch, heads, seq, dim]` in a pool `[pages, page, heads, dim]`.

        Returns what the rows have there: `[batch, heads, width, dim]`.
        """
        pool.index_put_(self.where, new.transpose(1, 2).to(pool.dtype))
        return self.take(pool)

    def take(self, pool: Tensor) -> Tensor:
        """The entries of the rows in a pool `[pages, page, heads, dim]`: `[batch, heads, width, dim]`."""
        held = pool.index_select(0, self.pages)  # copies whole pages, where pool[table] takes number by number on CPUs
        return held.view(self.table.shape[0], self.width, *pool.shape[2:]).transpose(1, 2)

    @cached_property
    def pages(self) -> Tensor:
        """`int64[batch * pages]`: the pages of all rows."""
        return self.table.flatten()


def positions_of(input_ids: Tensor, lengths: Tensor, counts: Tensor) -> Tensor:
    """`int64[batch, seq]`: the positions of new tokens in their texts, -1 for padding."""
    seq = input_ids.shape[1]
    new = torch.arange(seq, device=lengths.device) - (seq - counts)[:, None]
    return torch.where(new >= 0, lengths[:, None] + new, -1)
