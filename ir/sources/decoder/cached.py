"""transformers' caches and masks over pages: the only file that knows them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import masking_utils
from transformers.cache_utils import Cache, CacheLayerMixin

from ir.sources.decoder.kept import Pool
from ir.sources.decoder.rows import TextRows, positions_of
from ir.sources.decoder.step import CacheUse, DecoderStep


class PagedLayer(CacheLayerMixin):
    """The keys and values of one layer, in pages."""

    is_compileable = True

    def __init__(self, rows: TextRows, pools: tuple[Tensor, ...], sliding: bool, seen: Any, contiguous: bool) -> None:
        super().__init__()
        self.contiguous = contiguous
        self.rows, self.pools, self.is_sliding, self.seen = rows, pools, sliding, seen
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...

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


class RowCache(Cache):
    """The `past_key_values` of a step."""

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        return self._layer(layer_idx).rows.positions

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[Any, Any]:
        return self._layer(layer_idx).get_mask_sizes(query_length)

    def _layer(self, index: int) -> PagedLayer:
        layer = self.layers[index]
        assert isinstance(layer, PagedLayer)
        return layer


class CachedStep(DecoderStep):
    """A step of a transformers model."""

    page: int
    layer_pools: tuple[tuple[Pool, ...], ...]
    use: CacheUse

    def logits(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        positions = positions_of(input_ids, lengths, counts)
        rows = {False: self._rows(tables.get("table"), torch.zeros_like(lengths), positions)}
        rows[True] = self._rows(tables.get("window_table"), tables.get("window_first", lengths), positions)
        layers = [self._layer(pools, rows[pools[0].sliding], input_ids.shape[1]) for pools in self.layer_pools]
        whole: Any = super(DecoderStep, self).forward
        accepts = inspect.signature(whole).parameters
        given: dict[str, Any] = {"past_key_values": RowCache(layers=list(layers))}
        if "position_ids" in accepts:
            given["position_ids"] = positions.clamp(min=0)
        if self.use.counts_keys:
            width = layers[0].rows.width
            given["attention_mask"] = (torch.arange(width, device=lengths.device) < (lengths + counts)[:, None]).long()
        if "logits_to_keep" in accepts:
            given["logits_to_keep"] = 1
        with _masks_of_rows():
            return whole(input_ids=input_ids, use_cache=True, **given).logits[:, -1]

    def _rows(self, table: Tensor | None, first: Tensor, positions: Tensor) -> TextRows | None:
        if table is None:
            return None
        rows = TextRows(table, first, positions, self.page)
        _ = rows.where  # before the first layer, or its code would differ from that of the others
        return rows

    def _layer(self, pools: tuple[Pool, ...], rows: TextRows | None, seq: Any) -> PagedLayer:
        assert rows is not None
        seen = rows.width - seq if self.use.counts_keys else rows.positions[:, :1]
        held = tuple(getattr(self.get_submodule(pool.owner), pool.attribute) for pool in pools)
        return PagedLayer(rows, held, pools[0].sliding, seen, self.use.contiguous)


@contextmanager
def _masks_of_rows() -> Iterator[None]:
    """Inside the context, transformers makes its masks from the positions of each row."""
    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    for name in ("sdpa", "eager"):
        masks[name] = _of_rows(masks[name])
    try:
        yield
    finally:
        for name in ("sdpa", "eager"):
            del masks[name]  # the interface's own is there again


def _of_rows(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A mask function of transformers that takes positions `[batch, seq]` as the offset of the queries."""

    def mask(
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: Any = 0,
        kv_offset: Any = 0,
        mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
        attention_mask: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: Any = "cpu",
        **others: Any,
    ) -> Any:
        if not isinstance(q_offset, Tensor) or q_offset.dim() != 2:
            given = {"q_offset": q_offset, "kv_offset": kv_offset, "mask_function": mask_function, "dtype": dtype}
            return plain(
                batch_size, q_length, kv_length, attention_mask=attention_mask, device=device, **given, **others
            )
        asks = torch.maximum(q_offset, kv_offset[:, None])  # padding sees one key: without any it would be NaN
        keys = torch.arange(kv_length, device=device) + kv_offset[:, None]
        batch = torch.arange(batch_size, device=device)[:, None, None, None]
        head = torch.zeros(1, dtype=torch.int64, device=device)[:, None, None, None]
        allowed = mask_function(batch, head, asks[:, None, :, None], keys[:, None, None, :])
        allowed = allowed.expand(batch_size, -1, q_length, kv_length)
        if plain is masking_utils.eager_mask:
            return torch.where(allowed, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)
        return allowed

    return mask
