"""transformers' caches over pools: pages of keys and values, slots of what is kept of a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, LinearAttentionCacheLayerMixin

from ir.sources.decoder.caches.kept import STATES
from ir.sources.decoder.rows import TextRows


class PagedLayer(CacheLayerMixin):
    """The keys and values of one layer, in pages."""

    is_compileable = True

    def __init__(self, rows: TextRows, pools: tuple[Tensor, ...], sliding: bool, seen: Any, contiguous: bool) -> None:
        super().__init__()
        self.contiguous = contiguous
        self.rows, self.pools, self.is_sliding, self.seen = rows, pools, sliding, seen
        self.is_initialized = True

    def lazy_initialization(self, *_: Any, **__: Any) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store new keys and values; returns those of the rows."""
        self.keys, self.values = map(self.rows.put, self.pools, (key_states, value_states))
        if self.contiguous:
            self.keys, self.values = self.keys.contiguous(), self.values.contiguous()
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[Any, Any]:
        return self.rows.width, self.rows.first

    def get_seq_length(self) -> Any:
        return self.seen

    def get_max_length(self) -> int:
        return -1


@dataclass(frozen=True, eq=False)
class RowSlots:
    """The slots of the rows of a batch, `int64[batch]`, and which rows are `fresh`, without any token yet."""

    slots: Tensor
    fresh: Tensor  # bool[batch]

    def read(self, pool: Tensor) -> Tensor:
        """The states of the rows, of a pool `[slots, …]`; zeros of a fresh one."""
        state = pool[self.slots]
        return torch.where(self.fresh.view(-1, *[1] * (state.dim() - 1)), 0, state)

    def write(self, pool: Tensor, state: Tensor) -> None:
        pool.index_put_((self.slots,), state.to(pool.dtype))


class SlotLayer(LinearAttentionCacheLayerMixin):
    """The last inputs of a layer's convolutions and the states of its recurrences, in slots.

    The layer's code changes what `begin` reads, or hands over something new; `commit` stores it.
    """

    is_compileable = True

    def __init__(self, rows: RowSlots, pools: Mapping[str, Tensor]) -> None:
        """`pools` by what they keep: "conv", "recurrent", "recurrent_1"."""
        count = max(int(name.partition("_")[2] or 0) for name in pools) + 1
        super().__init__(number_of_states=count)
        self.slots, self.state_pools = rows, pools
        for kind, at, _ in self._each():
            getattr(self, f"is_{kind}_states_initialized")[at] = True
            self.has_previous_state[at] = True  # that of a fresh row is zeros, which is the same

    def lazy_initialization(self, *_: Any, **__: Any) -> None: ...

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        """Returns the inputs of the convolution with those before them, of which the last ones are kept."""
        before = self._states("conv")[state_idx]
        whole = torch.cat([before, conv_states.to(before.dtype)], -1)
        self._states("conv")[state_idx] = whole[..., -before.shape[-1] :]
        return whole

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        self._states("recurrent")[state_idx] = recurrent_states
        return recurrent_states

    def begin(self, *_: Any) -> None:
        """Read the states of the rows."""
        for kind, at, pool in self._each():
            self._states(kind)[at] = self.slots.read(pool)

    def commit(self, *_: Any) -> None:
        """Store the states of the rows."""
        for kind, at, pool in self._each():
            self.slots.write(pool, self._states(kind)[at])

    def _states(self, kind: str) -> dict[int, Any]:
        return getattr(self, f"{kind}_states")

    def _each(self) -> list[tuple[str, int, Tensor]]:
        """The kind and the number of each state, with its pool."""
        parts = [(name.partition("_"), pool) for name, pool in self.state_pools.items()]
        assert all(kind in STATES for (kind, _, _), _ in parts)
        return [(kind, int(number or 0), pool) for (kind, _, number), pool in parts]


class PagedSlotLayer(SlotLayer, PagedLayer):
    """A layer that attends and has a recurrence."""

    def __init__(
        self, rows: TextRows, pools: tuple[Tensor, ...], sliding: bool, seen: Any, contiguous: bool, *slots: Any
    ) -> None:
        """`slots`: the arguments of a SlotLayer."""
        PagedLayer.__init__(self, rows, pools, sliding, seen, contiguous)
        SlotLayer.__init__(self, *slots)


class EmptyLayer(CacheLayerMixin):
    """The cache of a layer that keeps nothing."""

    is_compileable = True

    def lazy_initialization(self, *_: Any, **__: Any) -> None: ...

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """The `past_key_values` of a step."""

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        return self._attending(layer_idx).rows.asked

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[Any, Any]:
        return self._attending(layer_idx).get_mask_sizes(query_length)

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        return self._attending(layer_idx).get_seq_length()

    def _attending(self, index: int) -> PagedLayer:
        """The layer of that number, or where it does not attend one that does."""
        return next(layer for layer in (self.layers[index], *self.layers) if isinstance(layer, PagedLayer))
