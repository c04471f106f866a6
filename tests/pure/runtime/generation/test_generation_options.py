"""Options of a text: as the call says, then as the checkpoint does, or refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from runtime.errors import InputError
from runtime.generation.options import Sampling, TextOptions, text_options, told_padding
from runtime.manifest.manifest import Generation
from tests.support.running.texts import END, FULL

SAYS = Generation(page=4, pages=9, max_length=20, vocabulary=9, stop=(2,), defaults={"temperature": 0.6, "top_k": 50})


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"do_sample": False}, Sampling()),
        ({"do_sample": True, "seed": 3}, Sampling(0.6, 50, seed=3)),
        ({"seed": 3}, Sampling(0.6, 50, seed=3)),
        ({"temperature": 0.9, "top_k": 0, "seed": 3}, Sampling(0.9, 0, seed=3)),
        ({"do_sample": False, "repetition_penalty": 1.5}, Sampling(repetition_penalty=1.5)),
        ({"do_sample": False, "logit_bias": {3: -1, 2: 4}}, Sampling(logit_bias=((2, 4.0), (3, -1.0)))),
        ({"do_sample": False, "temperature": 0.9}, Sampling()),
        ({"do_sample": False, "num_beams": 1, "suppress_tokens": [3, 99]}, Sampling(suppressed=(3,))),
    ],
)
def test_sampling_is_as_the_call_says_and_then_as_the_checkpoint_does(given: dict[str, Any], want: Sampling) -> None:
    assert text_options(SAYS, 5, given).sampling == want


def test_a_seed_for_where_a_text_is_drawn_is_no_wish_to_draw() -> None:
    assert text_options(SAYS, 5, {"default_seed": 3}).sampling == Sampling(0.6, 50, seed=3)
    assert text_options(SAYS, 5, {"default_seed": 3, "seed": 4}).sampling == Sampling(0.6, 50, seed=4)
    assert text_options(FULL, 5, {"default_seed": 3}).sampling == Sampling()


def test_a_text_without_a_length_ends_where_the_model_is_full() -> None:
    assert text_options(FULL, 5, {}) == TextOptions(59, stop=frozenset([END]))
    given = {"do_sample": False, "max_length": 8, "eos_token_id": [3, 4], "stop": "\n"}
    assert text_options(SAYS, 5, given) == TextOptions(3, stop=frozenset([3, 4]), ends=("\n",))


def test_a_text_is_as_long_as_the_checkpoint_says_where_nobody_else_does() -> None:
    says = replace(FULL, defaults={"max_new_tokens": 7, "max_length": 9})
    assert [text_options(says, 5, given).new for given in ({}, {"max_length": 30}, {"max_new_tokens": 8})] == [7, 25, 8]
    assert text_options(says, 60, {}).new == 4  # what there is room for
    says = replace(FULL, defaults={"max_length": 9})
    assert text_options(says, 5, {}).new == 4
    assert text_options(says, 5, {}, padding=2).new == 2
    with pytest.raises(InputError, match="max_length is 9, which leaves no token to write"):
        text_options(says, 9, {})


def test_any_whole_number_is_a_seed() -> None:
    seeds = [text_options(SAYS, 5, {"seed": seed}).sampling.seed for seed in (-7, 1 << 62, (1 << 64) - 1, -(1 << 63))]
    assert seeds == [-7, 0, (1 << 62) - 1, 0]
    assert torch.tensor(seeds).dtype == torch.int64


def test_padding_counts_for_the_length_of_a_text() -> None:
    options = text_options(SAYS, 5, {"max_length": 12, "min_length": 10}, padding=3)
    assert (options.new, options.rules.least) == (4, 7)
    assert text_options(SAYS, 5, {"do_sample": False}, padding=3).new == 15


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_padding_is_told_from_the_ids_that_end_a_text(kind: type) -> None:
    """However they are given; an id that does both ends texts, and is no padding."""
    assert told_padding(SAYS, {"pad_token_id": 2}) is None
    assert told_padding(SAYS, {"pad_token_id": 4, "eos_token_id": kind([3, 4])}) is None
    assert told_padding(SAYS, {"pad_token_id": 2, "eos_token_id": kind([3, 4])}) == 2
    assert told_padding(SAYS, {"pad_token_id": 2, "eos_token_id": torch.tensor([3, 4])}) == 2  # refused by others
    assert text_options(SAYS, 5, {"eos_token_id": kind([3]), "stop": kind(["."])}).ends == (".",)


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        (20, {}, "the prompt has 20 tokens, and a text of this artifact at most 20 with what follows"),
        (5, {"max_new_tokens": 0}, "max_new_tokens is 0, which leaves no token to write"),
        (5, {"max_new_tokens": True}, "max_new_tokens is True, which leaves no token to write"),
        (5, {"max_length": 5}, "max_length is 5, which leaves no token to write"),
        (
            5,
            {"max_new_tokens": 16},
            "a prompt of 5 tokens and 16 new ones are 21, and a text of this artifact has at most 20",
        ),
        (5, {"max_new_tokens": 1.5}, "max_new_tokens is 1.5"),
        (5, {"temperature": -1}, "temperature is -1; it must be at least 0"),
        (5, {"temperature": float("nan")}, "temperature is nan; it must be at least 0"),
        (5, {"top_p": 0}, "top_p is 0; it must be above 0 and at most 1"),
        (5, {"top_k": -1}, "top_k is -1; it must be a whole number, 0 for all"),
        (5, {"min_p": 2}, "min_p is 2; it must be from 0 to 1"),
        (5, {"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        (5, {"repetition_penalty": 0}, "repetition_penalty is 0; it must be a number above 0"),
        (5, {"logit_bias": {9: 1}}, "logit_bias names 9; token ids are 0 to 8"),
        (5, {"logit_bias": [3]}, "logit_bias is of type list; it must be a dict from token ids to numbers"),
        (5, {"logit_bias": {3: "much"}}, "logit_bias is much for the token 3; it must be a number"),
        (5, {"stop": ""}, "'' ends no text; stop takes texts and token ids"),
        (5, {"num_beams": 4}, "num_beams is for beam search, which stages do not do"),
        (5, {"typical_p": 0.5}, "generate takes no typical_p"),
        (5, {"suppress_tokens": 3}, "suppress_tokens is 3; it must be a list of token ids"),
        (5, {"temperature": "hot"}, "temperature is 'hot'; it must be at least 0"),
        (5, {"seed": True}, "seed is True; it must be a whole number"),
        (5, {"top_k": 1 << 80}, "top_k is 1208925819614629174706176; it must be a whole number, 0 for all"),
        (5, {"do_sample": "yes"}, "do_sample is 'yes'; it must be True or False"),
        (5, {"stop": 0.5}, "0.5 ends no text; stop takes texts and token ids"),
        (5, {"repetition_penalty": 10**400}, "it must be a number above 0"),
        (5, {"logit_bias": {3: -(10**400)}}, "for the token 3; it must be a number"),
    ],
)
def test_options_that_make_no_sense(prompt: int, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as said:
        text_options(SAYS, prompt, given)
    assert message in str(said.value)
