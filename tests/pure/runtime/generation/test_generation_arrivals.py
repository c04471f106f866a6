"""Texts that arrive while others are written, over simulated stages: what they wait for, and what others lose."""

from __future__ import annotations

from statistics import mean, median

import pytest

from runtime.generation.scheduling.scheduler import CHUNK, LEAST_AHEAD, STEPS_AHEAD
from runtime.options import PREFILL_SHARE
from tests.support.running.simulated_texts import HOST, Simulation, Text, alone, mixed, seconds

NEW = 160
RATES = {1: 2000, 4: 6700}  # tokens a second of 128 texts that are all there


@pytest.mark.parametrize("stages", [1, 4])
def test_texts_at_random_have_a_first_token_within_half_more_than_their_prefill_alone(stages: int) -> None:
    """At 0.7 of the rate of texts that are all there, which is kept."""
    texts = mixed(0.7 * RATES[stages] / NEW)
    ended = Simulation(texts, stages).run()
    assert median(text.waited for text in texts) <= 1.5
    assert max(text.waited for text in texts) <= 5.5  # 8.6 in the order of their arrival
    assert ended < max(text.arrives for text in texts) + 3


@pytest.mark.parametrize("stages", RATES)
def test_texts_that_are_all_there_are_written_at_the_rate_that_is_asked_of_one_device(stages: int) -> None:
    texts = mixed()
    assert len(texts) * NEW / Simulation(texts, stages).run() > RATES[stages]


def test_steps_of_texts_whose_last_step_is_under_way_do_not_hold_up_chunks_of_prompts() -> None:
    """Half of the batches are steps, of few texts at first, on four devices: 4,600 tokens a second if they did."""
    texts = mixed()
    assert len(texts) * NEW / Simulation(texts, 4, 0.5).run() > 5400


@pytest.mark.parametrize(("factor", "most"), [(1.0, LEAST_AHEAD), (0.7, LEAST_AHEAD), (0.05, STEPS_AHEAD)])
def test_a_text_comes_behind_as_many_steps_as_the_host_may_be_late_for(factor: float, most: int) -> None:
    """Long steps: one that runs and one behind it.  Short ones: more, which take no longer."""
    going_on, late = Text(0.0, 300, 120), Text(0.25 * factor, 100, 2)
    simulation = Simulation([going_on, late], factor=factor)
    simulation.run()
    assert late.ordered_ahead <= most
    assert simulation.scheduler.ahead == most


@pytest.mark.parametrize("share", [0.25, 0.5, PREFILL_SHARE, 0.9])
def test_others_wait_for_no_more_chunks_than_the_share_says_and_lose_no_pace_by_it(share: float) -> None:
    """Of 8 texts that are written while prompts come one behind the other."""
    writing = [Text(0.0, 128, 400) for _ in range(8)]
    prompts = [Text(0.5 + 0.01 * i, 2048, 1) for i in range(12)]
    Simulation([*writing, *prompts], share=share).run()
    chunks = share / (1 - share)
    gaps = [gap for text in writing for gap in text.gaps if text.written[0] < 0.5]
    assert max(gaps) <= seconds(8, 1) + (int(chunks + 0.99)) * seconds(1, CHUNK) + 1e-6
    spent = 400 * seconds(8, 1) + 12 * 4 * seconds(1, CHUNK)
    assert mean(text.written[-1] for text in writing) == pytest.approx(spent, rel=0.03)


def test_a_short_prompt_overtakes_a_long_one_and_many_short_ones_do_not_hold_it_up() -> None:
    long, short = Text(0.0, 3900, 2), Text(0.03, 200, 2)
    Simulation([long, short]).run()
    assert short.waited < 4.5  # the two chunks that were ordered before
    assert short.written[0] < long.written[0]
    long, many = Text(0.0, 3900, 2), [Text(0.02 * i, 500, 2) for i in range(1, 60)]  # as fast as they can be prefilled
    Simulation([long, *many]).run()
    before = sum(text.prompt for text in many if text.written[0] < long.written[0])
    assert 2000 <= before <= 3900


def test_a_text_that_comes_after_steps_of_others_has_all_chunks_of_a_turn_before_the_next_step() -> None:
    writing, late = [Text(0.0, 128, 400) for _ in range(8)], Text(0.5, 3 * CHUNK, 1)
    Simulation([*writing, late]).run()
    assert late.waited * alone(late.prompt) < LEAST_AHEAD * seconds(8, 1) + 3 * seconds(1, CHUNK) + 3 * HOST
