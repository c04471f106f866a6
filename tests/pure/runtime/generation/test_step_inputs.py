"""The inputs of steps that follow each other are those made for each alone, and the same tensors where they can be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from runtime.device import packs
from runtime.generation.continuation import Continuation
from runtime.generation.options import Sampling, TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.padding import with_few_widths, with_spare_rows
from runtime.generation.scheduling.scheduler import Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress
from runtime.generation.scheduling.step_inputs import OF_PAGES, StepInputs, StepTensors
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
            found = steps.of(batch).beside(**steps.ids(batch))
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


def test_a_batch_follows_the_step_that_wrote_the_last_token_of_each_text_in_its_row() -> None:
    """A device has those tokens as the next step takes them, whether the host knows them or not."""
    options, pools = TextOptions(9), Pools.of(PLAIN)
    texts = [TextInProgress([5, 6], options, Continuation(number, options, print)) for number in range(3)]
    whole, step = TextBatch((*texts,), (1, 1, 1)), StepOutputs(torch.zeros(3), torch.zeros(3))
    assert whole.follows is None
    for row, one in enumerate(texts):
        assert one.grow(pools, 9)
        assert one.computed(pools, 2, step, row)
    texts[1].read(pools, 7)
    assert whole.follows is step
    assert TextBatch((texts[0], texts[2]), (1, 1)).follows is None
    texts[0].computed(pools, 1, StepOutputs(torch.zeros(1), torch.zeros(1)), 0)
    assert whole.follows is None
    assert [one.token for one in TextBatch((texts[1],), (1,)).last_tokens()] == [7]


def following(
    steps: StepInputs, numbers: Sequence[int], groups: int, count: int
) -> list[tuple[TextBatch, StepTensors]]:
    """The inputs of the first steps of texts with prompts of five tokens."""
    scheduler = Scheduler(Pools.of(steps.generation), groups)
    for number in numbers:
        scheduler.add(TextInProgress([number] * 5, options := TextOptions(9), Continuation(number, options, print)))
    made: list[tuple[TextBatch, StepTensors]] = []
    while len(made) < count:
        batch = scheduler.next_batch()
        assert batch is not None
        if max(batch.counts) == 1:
            made.append((batch, steps.of(batch)))
        for one, _ in scheduler.computed(batch, StepOutputs(torch.zeros(9), torch.zeros(9))):
            one.read(scheduler.pools, 5)
        scheduler.all_read()
    return made


def test_what_is_as_in_the_step_before_is_the_same_tensor() -> None:
    made = [given for _, given in following(StepInputs(TAKES, PLAIN, True, False), (1, 2, 4), 1, 8)]
    changed = [{name for name in one if one[name] is not other[name]} for one, other in pairwise(made)]
    assert changed[:2] == [{"lengths"}] * 2
    assert {"table", "sampling"} <= changed[2]  # each has a page more, and a wider table
    assert changed[6] == {"lengths", *OF_PAGES} & {*TAKES}  # each has a page more


def test_groups_that_take_turns_keep_their_tensors() -> None:
    made: dict[object, list[StepTensors]] = {}
    for batch, given in following(StepInputs(TAKES, PLAIN, True, False), range(4), 2, 6):
        made.setdefault(batch.texts, []).append(given)
    assert [len(inputs) > 2 for inputs in made.values()] == [True, True]
    for first, second, *_ in made.values():
        assert {name for name in first if first[name] is not second[name]} == {"lengths"}


@pytest.mark.parametrize("groups", [1, 2])
def test_each_step_has_a_pack_of_its_own(groups: int) -> None:
    """Devices may still copy those of the steps before, in which nothing changes."""
    steps = following(StepInputs(TAKES, PLAIN, True, True), range(3 * groups), groups, 3 * groups)
    made = [given.pack for batch, given in steps if batch.texts == steps[0][0].texts]
    known = [pack for pack in made if pack is not None]
    assert len({pack.memory.data_ptr() for pack in known}) == len(made) == 3
    assert len({pack.layout for pack in known}) == 1
    assert [pack.tensors["lengths"].tolist() for pack in known] == [[n, n, n, 0] for n in (5, 6, 7)]
    assert all(torch.equal(known[0].tensors["table"], pack.tensors["table"]) for pack in known)
    assert "input_ids" not in known[0].tensors  # which a device may make


def test_a_page_more_is_changed_in_the_pack_and_texts_that_need_a_wider_table_have_another() -> None:
    steps = following(StepInputs(TAKES, PLAIN, True, True), (1, 2, 4), 1, 9)
    packs = [given.pack for _, given in steps if given.pack is not None]
    tables = [pack.tensors["table"] for pack in packs]
    assert [(table != 0).sum(1).tolist() for table in tables] == [[2, 2, 2, 0]] * 3 + [[3, 3, 3, 0]] * 4 + [
        [4, 4, 4, 0]
    ] * 2
    assert [table.shape[1] for table in tables] == [2] * 3 + [4] * 6
    assert [len({pack.layout for pack in some}) for some in (packs, packs[3:])] == [2, 1]


def test_a_large_input_of_following_steps_is_the_same_tensor_beside_their_packs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packs, "LARGEST_PACKED", 63)  # sampling has 64 bytes
    first, second, _ = (given for _, given in following(StepInputs(TAKES, PLAIN, True, True), (1, 2, 4), 1, 3))
    assert first["sampling"] is second["sampling"]
    assert first.pack is not None
    assert {"lengths", "counts"} <= first.pack.tensors.keys()
    assert "sampling" not in first.pack.tensors
    assert first["lengths"].tolist() != second["lengths"].tolist()
