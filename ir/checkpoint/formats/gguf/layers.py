"""Tensors that lie otherwise in GGUF files than in transformers: experts, and the attention of Falcon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch

from ir.checkpoint.tensors import Tensorlike


@dataclass(frozen=True, eq=False)
class JoinedExperts:
    """The gate of each expert and what it lets through, `[experts, outputs, inputs]` each, as one tensor.

    One lies behind the other, or they take turns (`in_turn`). `turned`: inputs come before outputs.
    """

    gate: Tensorlike
    up: Tensorlike
    in_turn: bool
    turned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        experts, outputs, *inputs = self.gate.shape
        return (experts, *inputs, 2 * outputs) if self.turned else (experts, 2 * outputs, *inputs)

    @property
    def dtype(self) -> torch.dtype:
        return self.gate.dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.cat([*self.blocks(dtype)]).view(self.shape)

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        """The elements in order, an expert at a time."""
        shape = self.gate.shape[1:]
        for both in zip(_experts(self.gate, dtype), _experts(self.up, dtype), strict=True):
            gate, up = (part.view(shape) for part in both)
            joined = torch.stack([gate, up], 1).flatten(0, 1) if self.in_turn else torch.cat([gate, up])
            yield (joined.mT if self.turned else joined).flatten()


@dataclass(frozen=True, eq=False)
class TurnedExperts:
    """A tensor `[experts, outputs, inputs]` as `[experts, inputs, outputs]`."""

    base: Tensorlike

    @property
    def shape(self) -> tuple[int, ...]:
        experts, outputs, inputs = self.base.shape
        return experts, inputs, outputs

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        return self.base.read(dtype).mT.contiguous()

    def blocks(self, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        for expert in _experts(self.base, dtype):
            yield expert.view(self.base.shape[1:]).mT.flatten()


class Arranged(NamedTuple):
    """The elements of a tensor, as transformers' own processors return them."""

    weights: Any


class FalconProcessor:
    """Puts queries, keys and values of each of Falcon's groups together, which a file has one kind after another."""

    def __init__(self, config: Any) -> None:
        self.heads = config["num_attention_heads"]
        several = config["new_decoder_architecture"] or not config["multi_query"]
        self.groups = config["num_kv_heads"] if several else 1
        self.size = config["hidden_size"] // self.heads

    def preprocess_name(self, hf_name: str) -> str:
        return hf_name

    def perform_fallback_tensor_mapping(self, *_: Any) -> None:
        """Nothing: all names are in the package's table."""

    def process(self, weights: Any, name: str, **_: Any) -> Arranged:
        if ".attn_qkv." not in name or self.groups == 1:
            return Arranged(weights)
        rest = weights.shape[1:]
        queries, keys = self.heads * self.size, self.groups * self.size
        parts = weights[:queries], weights[queries : queries + keys], weights[queries + keys :]
        grouped = [torch.from_numpy(part.copy()).view(self.groups, -1, self.size, *rest) for part in parts]
        return Arranged(torch.cat(grouped, 1).reshape(-1, *rest).numpy())


def _experts(tensor: Tensorlike, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The elements of each expert, gathered from blocks."""
    size, held = prod(tensor.shape[1:]), torch.empty(0, dtype=dtype)
    for block in tensor.blocks(dtype):
        held = torch.cat([held, block])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
