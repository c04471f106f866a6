"""The step of a transformers model with a cache in pools."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ir.checkpoint.adapters.kept import CHOICE
from ir.sources.decoder.caches.kept import Pool
from ir.sources.decoder.caches.layers import EmptyLayer, PagedLayer, PagedSlotLayer, RowCache, RowSlots, SlotLayer
from ir.sources.decoder.caches.masks import masks_of_rows
from ir.sources.decoder.rows import TextRows, positions_of
from ir.sources.decoder.step import OWN, CacheUse, DecoderStep


class CachedStep(DecoderStep):
    """A step of a transformers model."""

    page: int
    layer_pools: tuple[tuple[Pool, ...], ...]
    use: CacheUse

    def logits(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        positions = positions_of(input_ids, lengths, counts)
        rows = {"table": self._rows(tables.get("table"), 0, positions)}
        rows["window_table"] = self._rows(tables.get("window_table"), tables.get("window_first", 0), positions)
        slots = RowSlots(tables["slots"], lengths == 0) if "slots" in tables else None
        layers = [self._layer(pools, rows, slots, input_ids.shape[1]) for pools in self.layer_pools]
        whole: Any = super(DecoderStep, self).forward
        accepts = inspect.signature(whole).parameters
        cache = "past_key_values" if "past_key_values" in accepts else "cache_params"
        given: dict[str, Any] = {cache: RowCache(layers=layers)}
        if "position_ids" in accepts:
            whole_rows = rows["table"]
            given["position_ids"] = positions.clamp(min=0) if whole_rows is None else whole_rows.asked
            if "shifts" in tables:
                given["position_ids"] = given["position_ids"] + tables["shifts"][:, None]
        if self.use.counts_keys:
            width = next(layer.rows.width for layer in layers if isinstance(layer, PagedLayer))
            given["attention_mask"] = (torch.arange(width, device=lengths.device) < (lengths + counts)[:, None]).long()
        given |= {name: tensor for name, tensor in tables.items() if name not in OWN or name == CHOICE}
        if "logits_to_keep" in accepts:
            given["logits_to_keep"] = 1
        with masks_of_rows(), self._stored_states(layers):
            return whole(input_ids=input_ids, use_cache=True, **given).logits[:, -1]

    def _rows(self, table: Tensor | None, first: Tensor | int, positions: Tensor) -> TextRows | None:
        if table is None:
            return None
        return TextRows(table, first, positions, self.page).for_all_layers()

    def _layer(
        self, pools: tuple[Pool, ...], tables: Mapping[str, TextRows | None], slots: RowSlots | None, seq: Any
    ) -> Any:
        held = {pool: getattr(self.get_submodule(pool.owner), pool.attribute) for pool in pools}
        states = {pool.kept.name: tensor for pool, tensor in held.items() if pool.kept.of_text}
        paged = [pool for pool in pools if not pool.kept.of_text]
        if not paged:
            return SlotLayer(slots, states) if states and slots is not None else EmptyLayer()
        rows = tables[paged[0].table]
        assert rows is not None
        seen = rows.width - seq if self.use.counts_keys else rows.begin
        terms = (rows, tuple(held[pool] for pool in paged), paged[0].sliding, seen, self.use.contiguous)
        return PagedSlotLayer(*terms, slots, states) if states else PagedLayer(*terms)

    @contextmanager
    def _stored_states(self, layers: list[Any]) -> Iterator[None]:
        """Inside the context, a module reads what it keeps of a text at its beginning, and stores it at its end."""
        with ExitStack() as hooks:
            for pools, layer in zip(self.layer_pools, layers, strict=True):
                if isinstance(layer, SlotLayer):
                    owner = next(self.get_submodule(pool.owner) for pool in pools if pool.kept.of_text)
                    hooks.callback(owner.register_forward_pre_hook(layer.begin).remove)
                    hooks.callback(owner.register_forward_hook(layer.commit).remove)
            yield
