"""The inputs of steps that follow each other are those made for each alone, and the same tensors where they can be."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch

from runtime.generation.continuation import Continuation
from runtime.generation.options import Sampling, TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.padding import with_few_widths, with_spare_rows
from runtime.generation.scheduling.scheduler import Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress
from runtime.generation.scheduling.step_inputs import StepInputs
from runtime.manifest.manifest import Generation

NAMES = "input_ids lengths counts table window_table window_first adapter slots sampling seeds ranks marked changes"
TAKES = tuple(NAMES.split())
TERMS = Generation(page=4, pages=24, window=8, window_pages=14, slots=5, max_length=64, vocabulary=97)
PLAIN = Generation(page=4, pages=30, max_length=64, vocabulary=97)


def text(number: int, draw: random.Random) -> TextInProgress:
    sampling = Sampling() if number % 3 else Sampling(0.5, top_k=4, seed=number, logit_bias=((number, 1.0),))
    options = TextOptions(draw.randint(2, 30), sampling, adapter=number % 2)
    made = TextInProgress([number] * draw.randint(1, 12), options, Continuation(number, options, print))
    made.continuation.prompt_tokens = len(made.tokens)
    return made


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize("terms", [TERMS, PLAIN], ids=["windows and slots", "plain"])
def test_inputs_are_those_made_for_each_step_alone(terms: Generation, pads: bool) -> None:
    """Texts come, slide, give their pages up and leave."""
    draw, scheduler = random.Random(0), Scheduler(Pools.of(terms), 1)
    steps, waiting, compared = StepInputs(TAKES, terms, pads, pads), [text(n, random.Random(n)) for n in range(24)], 0
    while waiting or scheduler.active or scheduler.waiting:
        if waiting and draw.random() < 0.3:
            scheduler.add(waiting.pop())
        if (batch := scheduler.next_batch()) is None:
            continue
        if max(batch.counts) == 1:
            alone = with_spare_rows(batch, terms) if pads else batch
            wanted = alone.inputs(TAKES, terms)
            wanted = with_few_widths(wanted, terms) if pads else wanted
            found = steps.of(batch)
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
            assert steps.rows == len(alone.texts)
            compared += 1
        outputs = StepOutputs(torch.zeros(9, dtype=torch.int64), torch.zeros(9))
        for one, _ in scheduler.computed(batch, outputs):
            one.read(scheduler.pools, draw.randrange(97))
            if one.room == 0 or draw.random() < 0.02:
                scheduler.remove(one)
        scheduler.all_read()
    assert compared > 60


def test_what_is_as_in_the_step_before_is_the_same_tensor() -> None:
    scheduler, steps = Scheduler(Pools.of(PLAIN), 1), StepInputs(TAKES, PLAIN, True, True)
    for number in (1, 2, 4):
        scheduler.add(TextInProgress([number], options := TextOptions(9), Continuation(number, options, print)))
    made = []
    for _ in range(5):
        batch = scheduler.next_batch()
        assert batch is not None
        made.append(steps.of(batch))
        for one, _ in scheduler.computed(batch, StepOutputs(torch.zeros(9), torch.zeros(9))):
            one.read(scheduler.pools, 5)
        scheduler.all_read()
    changed = [{name for name in TAKES if one[name] is not other[name]} for one, other in pairwise(made)]
    assert changed[:3] == [{"input_ids", "lengths"}] * 3
    assert changed[3] == {*TAKES}  # each has another page, and all that is the same lies in one piece of memory


def test_groups_that_take_turns_keep_their_tensors() -> None:
    scheduler, steps = Scheduler(Pools.of(PLAIN), 2), StepInputs(TAKES, PLAIN, True, True)
    for number in range(4):
        scheduler.add(TextInProgress([number] * 5, options := TextOptions(9), Continuation(number, options, print)))
    made: dict[object, list[Mapping[str, torch.Tensor]]] = {}
    for _ in range(12):
        batch = scheduler.next_batch()
        assert batch is not None
        if max(batch.counts) == 1:
            made.setdefault(batch.texts, []).append(steps.of(batch))
        for one, _ in scheduler.computed(batch, StepOutputs(torch.zeros(9), torch.zeros(9))):
            one.read(scheduler.pools, 5)
        scheduler.all_read()
    assert [len(inputs) > 2 for inputs in made.values()] == [True, True]
    for first, second, *_ in made.values():
        assert {name for name in TAKES if first[name] is not second[name]} == {"input_ids", "lengths"}
