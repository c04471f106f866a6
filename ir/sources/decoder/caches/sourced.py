"""The step of a transformers model whose decoder reads what an encoder makes of a source."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from ir.sources.decoder.caches.kept import Pool
from ir.sources.decoder.caches.layers import PagedLayer, RowCache
from ir.sources.decoder.caches.masks import masks_of_rows
from ir.sources.decoder.rows import TextRows, positions_of
from ir.sources.decoder.step import DecoderStep


class CrossLayer(PagedLayer):
    """The keys and values that one layer has of the source: written with the first token, then read."""

    def __init__(self, rows: TextRows, pools: tuple[Tensor, ...], written: bool, states: int) -> None:
        """`states`: the number of states that all sources have, of which those of the last page are taken; 0: any."""
        super().__init__(rows, pools, sliding=False, seen=int(written), contiguous=False)
        self.states = states
        if written:
            del self.keys, self.values

    def __getattr__(self, name: str) -> Tensor:
        """Keys and values that were written: read where the layer's code asks for them, and so in the layer."""
        if name not in ("keys", "values"):
            raise AttributeError(name)
        held = self.rows.take(self.pools[name == "values"])
        return held[:, :, : self.states] if self.states else held

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for pool, new in zip(self.pools, (key_states, value_states), strict=True):
            self.rows.put(pool, new)
        return key_states, value_states


class PairCache(EncoderDecoderCache):
    """The caches of a step: of the text, and of its source."""

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        return self.self_attention_cache.get_query_offset(layer_idx)


class SourcedStep(DecoderStep):
    """A step of an encoder-decoder.  The first one of a text takes its source; the others find it in pools."""

    page: int
    own_pools: tuple[tuple[Pool, ...], ...]
    cross_pools: tuple[tuple[Pool, ...], ...]
    states: int  # of the encoder, where all sources have as many; 0: as many as a source has tokens
    equal: bool  # whether all rows are of one length

    def logits(self, input_ids: Tensor, lengths: Tensor, counts: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        whole: Any = super(DecoderStep, self).forward
        accepts = inspect.signature(whole).parameters
        positions = positions_of(input_ids, lengths, counts)
        rows = TextRows(tables["table"], 0, positions, self.page).for_all_layers()
        given, width = self._source(tables)
        if "decoder_position_ids" in accepts:
            given["decoder_position_ids"] = positions
        seen = lengths[0] if self.equal else positions[:, :1]
        if not self.equal:  # or some make one of their own, of the width `seen`
            given["decoder_attention_mask"] = torch.ones(lengths.shape[0], rows.width, device=lengths.device)
        own: list[Any] = [PagedLayer(rows, self._held(pools), False, seen, False) for pools in self.own_pools]
        first = "source" in tables
        places = self._places(tables["source_lengths"], width)
        source = TextRows(tables["source_table"], 0, places, self.page).for_all_layers()
        cross: list[Any] = [CrossLayer(source, self._held(pools), not first, self.states) for pools in self.cross_pools]
        given["past_key_values"] = PairCache(RowCache(layers=own), Cache(layers=cross))
        with masks_of_rows():
            return whole(decoder_input_ids=input_ids, use_cache=True, **given).logits[:, -1]

    def _source(self, tables: Mapping[str, Tensor]) -> tuple[dict[str, Any], Any]:
        """The arguments that are for the encoder, and the number of its states that a row has, padding included."""
        if "source" in tables:
            given: dict[str, Any] = {str(self.main_input_name): tables["source"]}
            width = self.states or tables["source"].shape[1]
        else:
            width = self.states or tables["source_table"].shape[1] * self.page
            given = {"encoder_outputs": self._no_states(tables["table"], width)}
        if not self.states:
            given["attention_mask"] = (self._places(tables["source_lengths"], width) >= 0).long()
        return given, width

    def _places(self, lengths: Tensor, width: Any) -> Tensor:
        """`int64[batch, width]`: the positions of a source, -1 behind its end."""
        places = torch.arange(width, device=lengths.device)
        return torch.where(places < lengths[:, None], places, -1)

    def _held(self, pools: tuple[Pool, ...]) -> tuple[Tensor, ...]:
        return tuple(getattr(self.get_submodule(pool.owner), pool.attribute) for pool in pools)

    def _no_states(self, table: Tensor, width: Any) -> BaseModelOutput:
        """States of the encoder whose keys and values are known: of the right shape alone."""
        model: Any = self
        nothing: Any = torch.zeros(1, 1, 1, dtype=model.dtype, device=table.device)
        return BaseModelOutput(nothing.expand(table.shape[0], width, model.config.hidden_size))
