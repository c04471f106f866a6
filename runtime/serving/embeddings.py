"""Embeddings of texts, by an encoder whose outputs are the states of its tokens."""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.generation.prompts.text import ids_of, library_tokenizer
from runtime.manifest.manifest import TOKENIZER, Tensor
from runtime.serving.arrays import Array, packed, values_of
from runtime.serving.served_model import ServedModel

IDS, STATES, VECTOR = "input_ids", "last_hidden_state", "sentence_embedding"
_FILLED = {"attention_mask": 1, "token_type_ids": 0, "token_types": 0}  # the value of other inputs, at each token


@dataclass(frozen=True)
class Embeddings:
    """Embeddings: those that a model returns, or the mean of the states of tokens, or the first one, of length 1."""

    model: ServedModel

    async def of(self, prompts: Sequence[str | list[int]]) -> tuple[list[list[float]], int]:
        """An embedding for each text or list of token ids, and the number of tokens of all.

        Raises InputError where the model gives none, and what `ServedModel.answer` does.
        """
        self._require_encoder()
        ids = [await asyncio.to_thread(self._encode, prompt) for prompt in prompts]  # others are answered meanwhile
        turns = asyncio.Semaphore(max(self.model.admission.limits.waiting // 4, 1))  # others want to wait, too
        asked = [asyncio.ensure_future(self._one(row, turns)) for row in ids]
        try:
            return await asyncio.gather(*asked), sum(map(len, ids))
        finally:
            for one in asked:  # once one has failed, nobody wants the others
                one.cancel()

    async def _one(self, ids: Sequence[int], turns: asyncio.Semaphore) -> list[float]:
        async with turns:
            return self._vector(await self.model.answer(self._inputs(ids)))

    def _require_encoder(self) -> None:
        """Raises InputError."""
        inputs = {tensor.name: tensor for tensor in self.model.interface.inputs}
        outputs = {tensor.name: tensor for tensor in self.model.interface.outputs}
        if self.model.interface.writes_texts or IDS not in inputs or not outputs.keys() & {STATES, VECTOR}:
            raise InputError(f"this model gives no embeddings: it has no `{IDS}` or returns no `{STATES}`")
        unknown = [name for name in inputs if name != IDS and name not in _FILLED]
        if unknown:
            raise InputError(f"this model gives no embeddings of texts alone: it takes `{unknown[0]}`, too")

    def _encode(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, list):
            return prompt
        ids = ids_of(self._tokenizer, prompt)
        if not ids:
            raise InputError("a text is empty")
        return ids

    def _inputs(self, ids: Sequence[int]) -> dict[str, Array]:
        return {
            t.name: _row(t, ids if t.name == IDS else [_FILLED[t.name]] * len(ids)) for t in self.model.interface.inputs
        }

    def _vector(self, output: Mapping[str, Array]) -> list[float]:
        return values_of(output[VECTOR]) if VECTOR in output else self._pooled(output[STATES])

    def _pooled(self, states: Array) -> list[float]:
        """One vector of states [1, tokens, width]."""
        _, tokens, width = states.shape
        values = values_of(states)
        vector = values[:width] if self._takes_first else [sum(values[i::width]) / tokens for i in range(width)]
        length = math.sqrt(sum(x * x for x in vector)) or 1.0
        return [x / length for x in vector]

    @cached_property
    def _takes_first(self) -> bool:
        """Whether the checkpoint says that the first token's state stands for the text.  Raises InputError."""
        path = self._folder / "config.json"
        told = json.loads(path.read_text()) if path.is_file() else {"pooling_mode_mean_tokens": True}
        modes = [name for name, on in told.items() if name.startswith("pooling_mode_") and on]
        if modes not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
            raise InputError(f"this checkpoint pools by {', '.join(modes)}, which is not supported")
        return modes == ["pooling_mode_cls_token"]

    @property
    def _folder(self) -> Path:
        return self.model.artifact / TOKENIZER

    @cached_property
    def _tokenizer(self) -> Any:
        if not (self._folder / "tokenizer.json").is_file():
            raise InputError("the artifact has no tokenizer, so `input` must be token ids")
        return library_tokenizer(self._folder)


def _row(tensor: Tensor, values: Sequence[int]) -> Array:
    """An input of one row."""
    try:
        data = packed(tensor.dtype, values)
    except (KeyError, struct.error):
        raise InputError(f"`{tensor.name}` is {tensor.dtype}, and cannot hold these token ids") from None
    return Array(tensor.dtype, (1, len(values)), data)
