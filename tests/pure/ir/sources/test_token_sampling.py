"""How a token is drawn from logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ir.sources.decoder.sampling import TokenSampling

VOCABULARY = 64


def sampled(logits: Tensor, marks: dict[str, Tensor] | None = None, **options: float) -> Tensor:
    """The tokens of rows with seeds 0, 1, …, each at position 5."""
    rows = len(logits)
    given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | options
    tensors = {name: torch.full((rows,), given[name], dtype=torch.float32) for name in given}
    vocabulary = logits.shape[1]
    most = int(given["top_k"]) or vocabulary
    changes = {"marked": torch.zeros(rows, 1, dtype=torch.int64), "penalty": torch.ones(rows, 1)}
    changes |= {"bias": torch.zeros(rows, 1), "ranks": torch.arange(min(2 * most, vocabulary))}
    sampling = TokenSampling(**tensors, seeds=torch.arange(rows), **(changes | (marks or {})))
    return sampling.next_tokens(logits, torch.full((rows,), 5))["token"]


class TestSampling:
    logits = torch.randn(40, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 2

    def test_is_greedy_at_temperature_0_and_with_one_token_to_draw_from(self) -> None:
        best = self.logits.argmax(-1)
        greedy: tuple[dict[str, Any], ...] = ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0})
        for options in greedy:
            assert torch.equal(sampled(self.logits, **options), best), options

    def test_changes_the_logits_of_marked_tokens_first(self) -> None:
        best = self.logits.argmax(-1, keepdim=True)
        halved = torch.where(self.logits > 0, self.logits / 8, self.logits * 8)
        wanted = torch.where(torch.arange(VOCABULARY) == best, halved, self.logits).argmax(-1)
        ones = torch.ones(len(best), 1)
        found = sampled(self.logits, {"marked": best, "penalty": ones * 8}, temperature=0.0)
        assert torch.equal(found, wanted)
        assert not torch.equal(found, best[:, 0])
        forbidden = sampled(self.logits, {"marked": best, "bias": ones * -torch.inf}, temperature=0.0)
        assert torch.equal(forbidden, self.logits.topk(2).indices[:, 1])

    def test_draws_the_same_from_more_ranks_than_it_needs(self) -> None:
        few, all_of_them = torch.arange(8), torch.arange(VOCABULARY)
        drawn = [sampled(self.logits, {"ranks": ranks}, top_k=5, top_p=0.9) for ranks in (few, all_of_them)]
        assert torch.equal(*drawn)

    def test_draws_the_same_alone_and_in_a_batch(self) -> None:
        together = sampled(self.logits, temperature=0.8, top_p=0.9)
        assert torch.equal(together[:1], sampled(self.logits[:1], temperature=0.8, top_p=0.9))
        assert not torch.equal(together, self.logits.argmax(-1))

    @pytest.mark.parametrize(
        ("options", "most"), [({"top_k": 3}, 3), ({"top_p": 0.6}, VOCABULARY), ({"min_p": 0.3}, VOCABULARY)]
    )
    def test_draws_as_often_as_probable_from_those_that_are_kept(self, options: dict[str, Any], most: int) -> None:
        probable, order = self.logits[0].softmax(-1).sort(descending=True)
        kept = (torch.arange(VOCABULARY) < most) & (probable.cumsum(0) - probable < options.get("top_p", 1.0))
        kept &= probable >= options.get("min_p", 0.0) * probable[0]
        wanted = torch.zeros(VOCABULARY).index_copy(0, order, probable * kept)
        drawn = torch.bincount(sampled(self.logits[:1].expand(20000, -1), **options), minlength=VOCABULARY)
        torch.testing.assert_close(drawn / 20000, wanted / wanted.sum(), rtol=0, atol=0.02)
        assert not drawn[wanted == 0].any()
