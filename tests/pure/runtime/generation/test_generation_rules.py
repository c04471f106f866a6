"""Rules on which tokens may follow, beside transformers' processors of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation import logits_process as t

from runtime.errors import InputError
from runtime.generation.continuation import Continuation
from runtime.generation.options import text_options
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.scheduler import Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress
from runtime.generation.token_rules import TokenRules
from runtime.manifest.manifest import Generation

VOCABULARY, END = 12, 2
TERMS = Generation(page=4, pages=40, max_length=64, vocabulary=VOCABULARY, stop=(END,))
TEXTS = ([5], [5, 6, 5], [7, 5, 6, 5, 6, 5], [3, 4, 3, 4, 9, 9], [END, 5, 5, 5, 5, 5, 5])

PROCESSORS: dict[str, tuple[dict[str, Any], Any]] = {
    "min_length": ({"min_length": 4}, t.MinLengthLogitsProcessor(4, [END], device="cpu")),
    "min_new_tokens": ({"min_new_tokens": 3}, t.MinNewTokensLengthLogitsProcessor(1, 3, [END], device="cpu")),
    "bad_words_ids": (
        {"bad_words_ids": [[4], [5, 6], [4, 3, 4, 9, 9, 8], [END]]},
        t.NoBadWordsLogitsProcessor([[4], [5, 6], [4, 3, 4, 9, 9, 8], [END]], [END]),
    ),
    **{
        f"no_repeat_ngram_size {n}": ({"no_repeat_ngram_size": n}, t.NoRepeatNGramLogitsProcessor(n)) for n in (1, 2, 3)
    },
    "forced_eos_token_id": ({"forced_eos_token_id": [8]}, t.ForcedEOSTokenLogitsProcessor(7, 8, device="cpu")),
}


def text(tokens: list[int], **options: Any) -> TextInProgress:
    """A text that began with its first token, of at most 7."""
    terms = text_options(TERMS, 1, {"max_length": 7, **options})
    told = Continuation(0, terms, lambda _: None)
    told.prompt_tokens = 1
    return TextInProgress(list(tokens), terms, told)


@pytest.mark.parametrize(("options", "processor"), PROCESSORS.values(), ids=PROCESSORS)
@pytest.mark.parametrize("tokens", TEXTS, ids=str)
def test_rules_are_those_of_transformers(options: dict[str, Any], processor: Any, tokens: list[int]) -> None:
    wanted = processor(torch.tensor([tokens]), torch.zeros(1, VOCABULARY))[0]
    found = torch.zeros(VOCABULARY)
    for token, _, bias in text(tokens, **options).marks():
        found[token] += bias
    if found.max() > 0:  # what is forced, where transformers takes away all others
        found = torch.where(found > 0, 0.0, -torch.inf)
    assert torch.equal(found, wanted)


def test_what_a_checkpoint_says_holds_unless_a_call_says_otherwise() -> None:
    terms = Generation(
        page=4, max_length=64, vocabulary=VOCABULARY, defaults={"no_repeat_ngram_size": 3, "min_length": 2}
    )
    assert text_options(terms, 1, {}).rules == TokenRules(least=2, ngram=3)
    assert text_options(terms, 1, {"no_repeat_ngram_size": 0}).rules == TokenRules(least=2)


def test_steps_run_ahead_of_tokens_that_have_no_say() -> None:
    ahead = {"min_new_tokens": 3, "forced_eos_token_id": 8, "bad_words_ids": [[4]]}
    for options, runs in ((ahead, True), ({"no_repeat_ngram_size": 2}, False), ({"bad_words_ids": [[4, 5]]}, False)):
        one, scheduler = text([5], **options), Scheduler(Pools.of(TERMS), 1)
        scheduler.add(one)
        batch = scheduler.next_batch()
        assert batch is not None
        scheduler.computed(batch, StepOutputs(torch.zeros(1), torch.zeros(1)))
        assert (scheduler.next_batch() is not None) is runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": -1}, "min_length is -1; it must be a number of tokens"),
        ({"bad_words_ids": [4]}, "bad_words_ids is [4]; it must be a list of lists of token ids"),
        ({"bad_words_ids": [[99]]}, "99 in bad_words_ids or forced_eos_token_id is no token id of this artifact"),
        ({"typical_p": 0.3}, "generate takes no typical_p"),
        ({"num_beams": 4}, "num_beams is for beam search, which stages do not do"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        text([5], **options)
    assert message in str(caught.value)


def test_options_that_change_no_token_are_taken() -> None:
    assert text_options(TERMS, 1, {"num_beams": 1, "use_cache": True}) == text_options(TERMS, 1, {})
