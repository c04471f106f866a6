"""The modules of sentence-transformers that make an embedding of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn


class SentencePooling(nn.Module):
    """The states of a text's tokens, [batch, seq, width] -> one vector for each way of pooling, joined."""

    def __init__(self, ways: Sequence[str]) -> None:
        super().__init__()
        self.ways = tuple(ways)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return torch.cat([POOLING_WAYS[way](states, mask) for way in self.ways], -1)


class SpladePooling(nn.Module):
    """The logits of a masked language model, [batch, seq, words] -> the weight of each word in a text, not negative."""

    def __init__(self, sums: bool, damped: bool) -> None:
        super().__init__()
        self.sums, self.damped = sums, damped

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        weights = (logits * mask.unsqueeze(-1).to(logits.dtype)).relu().log1p()
        weights = weights.log1p() if self.damped else weights
        return weights.sum(dim=1) if self.sums else weights.max(dim=1).values


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return _picked(states, mask.to(torch.int).argmax(dim=1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    length = states.shape[1]
    values, indices = mask.flip(1).max(1)
    indices = torch.where(values == 0, length - 1, indices)
    return _picked(states * mask.unsqueeze(-1).to(states.dtype), length - indices - 1)


def _picked(states: Tensor, index: Tensor) -> Tensor:
    """The state of one token of each text."""
    return torch.gather(states, 1, index.unsqueeze(-1).unsqueeze(1).expand(-1, 1, states.shape[-1])).squeeze(1)


def _largest(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask.unsqueeze(-1).expand_as(states) == 0, float("-inf")).max(dim=1).values


def _sums(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the states of a text's tokens, and the number of these, in float32 or wider."""
    wide = torch.promote_types(states.dtype, torch.float32)
    each = mask.unsqueeze(-1).to(states.dtype)
    return (states * each).sum(dim=1, dtype=wide), torch.clamp(each.sum(dim=1, dtype=wide), min=1e-9)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sums(states, mask)
    return (total / count).to(states.dtype)


def _mean_of_root(states: Tensor, mask: Tensor) -> Tensor:
    total, count = _sums(states, mask)
    return (total / torch.sqrt(count)).to(states.dtype)


def _weighted_mean(states: Tensor, mask: Tensor) -> Tensor:
    """The mean in which the first token of a text counts once, the next one twice, and so on."""
    wide = torch.promote_types(states.dtype, torch.float32)
    places = torch.arange(1, states.shape[1] + 1, device=states.device, dtype=wide)
    each = mask.to(wide) * (places - mask.to(torch.int32).argmax(dim=1, keepdim=True))
    total = (states * each.unsqueeze(-1)).sum(dim=1)
    return (total / torch.clamp(each.sum(dim=1, keepdim=True), min=1e-9)).to(states.dtype)


POOLING_WAYS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_of_root,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""The ways of pooling by their names in the settings, in the order in which vectors are joined."""


class SentenceDense(nn.Module):
    """A linear layer with an activation."""

    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear, self.activation = linear, activation

    def forward(self, vector: Tensor) -> Tensor:
        return self.activation(self.linear(vector))


class SentenceNorm(nn.Module):
    """Vectors of length 1."""

    def forward(self, vector: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vector, p=2.0, dim=-1)


class SentenceLayerNorm(nn.Module):
    """A layer norm of the embedding."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, vector: Tensor) -> Tensor:
        return self.norm(vector)


class SentenceCut(nn.Module):
    """The first numbers of the embedding, so many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, vector: Tensor) -> Tensor:
        return vector[..., : self.width]


class SentenceEncoder(nn.Module):
    """A transformer and the modules behind it; returns the embeddings, [batch, width], as `sentence_embedding`."""

    def __init__(self, transformer: nn.Module, pooling: nn.Module, behind: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.transformer, self.pooling, self.behind = transformer, pooling, nn.ModuleDict(behind)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        states = self.transformer(input_ids=input_ids, **{k: v for k, v in given.items() if v is not None})[0]
        vector = self.pooling(states, torch.ones_like(input_ids) if attention_mask is None else attention_mask)
        for module in self.behind.values():
            vector = module(vector)
        return {"sentence_embedding": vector}
