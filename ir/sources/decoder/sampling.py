"""TokenSampling as operators: the token of a row depends on its seed and position alone, not on the other rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TokenSampling:
    """The rule by which the next token of each row is drawn; all are `[batch]` unless they say otherwise.

    Sorting costs as much as the largest number of tokens that a row draws from, nothing where all rows are greedy.
    """

    temperature: Tensor  # float32; 0: the most probable token
    top_k: Tensor  # float32: the number of tokens to draw from; 0: all
    top_p: Tensor  # float32: of the most probable tokens as many as have this probability together; 1: all
    min_p: Tensor  # float32: tokens at least this times as probable as the most probable one; 0: all
    seeds: Tensor  # int64
    ranks: Tensor  # int64[ranks]: 0, 1, …, as many as the most tokens that a row draws from
    marked: Tensor  # int64[batch, marks]: tokens whose logits change; one may come again, with the same change
    penalty: Tensor  # float32[batch, marks]: divides their logits, or multiplies negative ones; 1: none
    bias: Tensor  # float32[batch, marks]: is added to them then

    def next_tokens(self, logits: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """Tokens for `logits` `[batch, vocabulary]`; `positions` `[batch]` are theirs in their texts.

        Returns "token" `int64[batch]`, and "logprob" `float32[batch]`: its log probability under the model.
        The largest of logit + Gumbel noise is a draw from softmax; the noise is a hash of seed, position and token.
        """
        logits = logits.float()
        at = logits.gather(1, self.marked)
        changed = torch.where(at < 0, at * self.penalty, at / self.penalty) + self.bias
        changed = logits.scatter(1, self.marked, changed)
        ordered, tokens = (changed / self.temperature.clamp(min=1e-6)[:, None]).topk(self.ranks.shape[0])
        noise = -torch.log(-torch.log(_uniform(self.seeds[:, None], positions[:, None], tokens)))
        drawn = torch.where(ordered >= self._least(ordered), ordered + noise, -torch.inf).argmax(-1, keepdim=True)
        token = torch.where(self.temperature > 0, tokens.gather(1, drawn)[:, 0], changed.argmax(-1))
        chosen = logits.gather(-1, token[:, None])[:, 0]
        logprob = chosen - logits.logsumexp(-1)
        return {"token": token, "logprob": logprob}

    def _least(self, ordered: Tensor) -> Tensor:
        """The least logit from which a token may be drawn, `[batch, 1]`, of `ordered` `[batch, ranks]`."""
        count = ordered.shape[-1]
        of_k = torch.where(self.top_k > 0, self.top_k, count).clamp(max=count).long()[:, None]
        share = torch.where(self.ranks < of_k, ordered, -torch.inf).softmax(-1)
        of_p = (share.cumsum(-1) - share < self.top_p[:, None]).sum(-1, keepdim=True).clamp(min=1)
        last = torch.minimum(of_k, of_p) - 1
        return torch.maximum(ordered.gather(-1, last), ordered[:, :1] + self.min_p.log()[:, None])


def _uniform(*parts: Tensor) -> Tensor:
    """A hash of integers as a number in (0, 1), by splitmix64 (Steele, Lea, Flood 2014); int64 wraps around."""
    x = torch.zeros((), dtype=torch.int64, device=parts[0].device)
    for part in parts:
        x = x + part * -7046029254386353131
        x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
        x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
        x = x ^ ((x >> 31) & 0x1FFFFFFFF)
    return (((x >> 40) & 0xFFFFFF).float() + 0.5) / (1 << 24)
