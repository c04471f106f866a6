"""Steps that are ordered before the tokens of those before them are read, over a decoder that is behind the host."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import pairwise
from queue import Empty
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from runtime.errors import PipelineClosed, StageError
from runtime.generation import generator
from runtime.generation.continuation import Continuation
from runtime.generation.generator import LOOKS, Generator, _Unread
from runtime.generation.options import Sampling, TextOptions
from runtime.generation.outputs import HostOutputs, StepOutputs
from runtime.generation.scheduling import scheduler
from runtime.generation.scheduling.padding import with_few_widths
from runtime.generation.scheduling.scheduler import STEPS_AHEAD, Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation
from tests.support.patience import PATIENCE
from tests.support.running.texts import (
    END,
    FULL,
    SLIDING,
    VOCABULARY,
    Decoder,
    Recurrence,
    begin,
    prompts,
    tokens,
    written,
)

CPU = torch.device("cpu")


@dataclass
class Done:
    """An event that completes once it was asked for a few times."""

    left: int = 12

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0


@dataclass
class Behind:
    """A decoder whose outputs exist a while after it has begun a step; it notes how far it is behind."""

    decoder: Decoder | Recurrence
    broken: tuple[int, ...] = ()  # the numbers of steps that fail
    open: bool = True
    delay: int = 12  # how often it is asked before outputs exist
    given: list[dict[str, Tensor]] = field(default_factory=list)
    events: list[Done] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)

    def submit(self, given: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        self.given.append({**given})
        self.behind.append(sum(event.left >= 0 for event in self.events))
        future: Future[StepOutputs] = Future()
        try:
            if len(self.given) in self.broken:
                raise StageError(1, "cpu", ValueError("lost"))
            made = self.decoder.run(**{name: tensor.tolist() for name, tensor in given.items()})
            self.events.append(Done(self.delay))
            future.set_result(StepOutputs(made.token, made.logprob, (self.events[-1],)))  # type: ignore[arg-type]
        except Exception as e:
            future.set_exception(e)
        return future

    def require_open(self) -> None:
        if not self.open:
            raise PipelineClosed("a stage does not come to an end")

    def generator(self, stages: int = 1, pads: bool = False, share: float = 0.5) -> Generator:
        made = GeneratingStages(self.submit, stages, pads, True, share, self.require_open, packs=True)
        return Generator(self.decoder.generation, self.decoder.takes, made)


@pytest.mark.slow
@pytest.mark.parametrize("generation", [FULL, SLIDING], ids=["full", "sliding"])
@pytest.mark.parametrize("stages", [1, 3])
def test_texts_are_those_that_wait_for_each_token(
    generation: Generation, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "SLACK", 60.0)  # as if each step were short, however busy this host is
    behind = Behind(Decoder(generation))
    made = behind.generator(stages)
    begun = [begin(made, prompt, 12 + i % 3) for i, prompt in enumerate(prompts(7))]
    found = [tokens(one) for one in begun]
    assert found == [written(p, 12 + i % 3, generation.window) for i, p in enumerate(prompts(7))]
    made.close()
    assert STEPS_AHEAD - 2 < max(behind.behind) < (stages + 1) * STEPS_AHEAD
    assert made._scheduler.pools.full.free == generation.pages - 1 or generation.window


def test_steps_behind_the_end_of_a_text_are_dropped() -> None:
    """The id that ends it is read when further steps are under way; its pages are free, and others' tokens stay."""
    prompt = next(p for p in prompts(200) if written(p, 20)[-1] == END and 3 < len(written(p, 20)) < 12)
    behind = Behind(Decoder(FULL))
    made = behind.generator()
    ends, goes_on = begin(made, prompt, 20), made.start([9, 9], TextOptions(30))
    assert tokens(ends) == written(prompt, 20)
    assert len(tokens(goes_on)) == 30
    steps = sum(len(step["lengths"]) for step in behind.given)
    assert steps > len(written(prompt, 20)) + 30  # some were computed for nobody
    assert made._scheduler.pools.full.free == FULL.pages - 1
    made.close()


@pytest.mark.slow
def test_who_cancels_gets_no_more_tokens_though_steps_are_under_way() -> None:
    behind = Behind(Decoder(FULL))
    made = behind.generator()
    long, other = made.start([1, 2], TextOptions(60)), made.start([3, 4], TextOptions(40))
    next(iter(long))
    long.cancel()
    count = len(long.steps)
    assert len(tokens(other)) == 40
    assert len(long.steps) == count
    made.close()


@pytest.mark.slow
def test_texts_that_lack_room_wait_until_the_tokens_of_others_are_read() -> None:
    behind = Behind(Decoder(Generation(page=4, pages=10, max_length=64, vocabulary=VOCABULARY)))
    made = behind.generator()
    begun = [made.start(prompt, TextOptions(12)) for prompt in prompts(8)]
    firsts = [tokens(found)[:3] for found in begun]
    assert firsts == [written(prompt, 3) for prompt in prompts(8)]
    assert made._scheduler.pools.full.free == 9
    assert isinstance(behind.decoder, Decoder)
    assert behind.decoder.computed > sum(map(len, prompts(8))) + 8 * 11  # some were computed again
    made.close()


@pytest.mark.parametrize("slots", [False, True])
def test_a_step_that_fails_is_ordered_again_though_those_before_it_are_not_read(slots: bool) -> None:
    terms = Generation(page=4, pages=40, slots=8, max_length=64, vocabulary=VOCABULARY, together="even")
    behind = Behind(Recurrence(terms) if slots else Decoder(FULL), broken=(4, 7, 8))
    made = behind.generator()
    begun = [begin(made, prompt) for prompt in prompts(5)]
    assert [tokens(found) for found in begun] == [written(prompt, 12) for prompt in prompts(5)]
    made.close()


def test_a_text_whose_state_is_lost_is_computed_again_token_by_token() -> None:
    """Its next token is the one behind those of its state, not the last one, which the step before has written."""
    terms = Generation(page=4, pages=40, slots=8, max_length=64, vocabulary=VOCABULARY, together="even", chunk=1)
    behind = Behind(Recurrence(terms), broken=(7,))
    made = behind.generator()
    prompt = next(p for p in prompts(200) if len(p) == 3 and len(written(p, 12)) == 12)
    assert tokens(begin(made, prompt)) == written(prompt, 12)
    made.close()
    assert len(behind.given) >= 2 + 12 + 1 + 6  # a step failed, behind which six tokens were computed again


def test_a_penalty_for_repeated_tokens_waits_for_each_token() -> None:
    behind = Behind(Decoder(FULL))
    made = behind.generator()
    made.start([1, 2], TextOptions(8, Sampling(repetition_penalty=2.0))).result(timeout=PATIENCE)
    assert max(behind.behind) == 0
    made.close()


def test_stages_that_are_closed_while_tokens_are_on_their_way() -> None:
    behind = Behind(Decoder(FULL))
    made = behind.generator()
    long = made.start([1, 2], TextOptions(50))
    next(iter(long))
    behind.open = False
    with pytest.raises(PipelineClosed, match="does not come to an end"):
        long.result(timeout=PATIENCE)
    made.close()


@pytest.mark.parametrize(("took", "decodes", "most"), [(0.02, True, 9), (0.001, True, 4), (0.08, False, 100)])
def test_tokens_are_looked_for_when_they_can_be_there(
    took: float, decodes: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks at a step that takes as long as the one before it, and at a prefill that takes 80 ms."""
    now, looks = 0.0, 0

    class Clock:
        def get(self, timeout: float) -> None:
            nonlocal now, looks
            now, looks = now + timeout, looks + 1
            raise Empty

    class Timed:
        def query(self) -> bool:
            return now >= took

    made = Behind(Decoder(FULL)).generator()
    monkeypatch.setattr(generator, "perf_counter", lambda: now)
    monkeypatch.setattr(made, "_events", Clock())
    made._step = took
    outputs = HostOutputs(torch.zeros(1), torch.zeros(1), (Timed(),))  # type: ignore[arg-type]
    made._unread.append(_Unread(outputs, [], 0.0, decodes))
    made._wait()
    assert looks <= most
    assert now < 1.1 * took + LOOKS[0]


def test_stages_that_are_faster_than_the_host_do_not_keep_it_from_other_texts() -> None:
    """Tokens are there as soon as their step is ordered, so that there is always another one to order."""
    behind, late = Behind(Decoder(FULL), delay=0), list[Continuation]()
    made = behind.generator()

    def submit(given: Mapping[str, Tensor], ready: Sequence[Any]) -> Future[StepOutputs]:
        if len(behind.given) == 4:
            late.append(made.start([9, 11], TextOptions(3)))
        return behind.submit(given, ready)

    made._stages = replace(made._stages, submit=submit)
    assert len(made.start([5, 6, 7], TextOptions(30)).result(timeout=PATIENCE)) == 30
    assert len(late[0].result(timeout=PATIENCE)) == 3
    assert behind.given[5]["input_ids"].tolist() == [[9, 11]]


def test_a_generator_with_nothing_to_do_keeps_no_text_alive() -> None:
    """A text knows its generator, which knows the engine: a pipeline that is dropped would keep its weights."""
    made = Behind(Decoder(FULL)).generator(pads=True)
    found = begin(made, [1, 2, 3], 6)
    assert tokens(found) == written([1, 2, 3], 6)
    assert made._thread is not None
    made._thread.join()
    kept = weakref.ref(found)
    del found
    assert kept() is None


def test_no_token_wakes_a_thread_that_waits_for_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found, woken = Continuation(0, TextOptions(9), print), Mock()
    monkeypatch.setattr(found._ended, "notify_all", woken)
    assert not any(found.add(token, 0.0) for token in range(8))
    assert not woken.called
    assert found.add(8, 0.0)
    assert woken.called


@pytest.mark.parametrize(("share", "between"), [(0.5, 1), (0.25, 3), (1.0, 0)])
def test_chunks_of_a_prompt_go_between_the_steps_of_others(share: float, between: int) -> None:
    """The steps between two chunks of a prompt of 30 tokens, which takes five, while another text is written."""
    behind = Behind(Decoder(FULL))
    made = behind.generator(share=share)
    made._scheduler.chunk = 6
    going_on = made.start([1], TextOptions(40))
    next(iter(going_on))
    late = made.start([*range(8, 38)], TextOptions(2))
    assert tokens(late) == written([*range(8, 38)], 2)
    going_on.cancel()
    made.close()
    chunks = [i for i, step in enumerate(behind.given) if step["input_ids"].shape[1] > 1]
    assert [after - before - 1 for before, after in pairwise(chunks)] == [between] * 4


def test_batches_are_padded_to_few_shapes_by_rows_that_write_to_page_0() -> None:
    behind = Behind(Decoder(Generation(page=4, pages=60, max_length=64, vocabulary=VOCABULARY)))
    taken = behind.decoder.run

    def run(**given: Any) -> StepOutputs:
        """The decoder, which knows no spare rows: those have page 0 alone."""
        rows = [i for i, row in enumerate(given["table"]) if any(row)]
        assert all(given["lengths"][i] == 0 for i in range(len(given["table"])) if i not in rows)
        made = taken(**{name: [values[i] for i in rows] for name, values in given.items()})
        token = torch.full((len(given["table"]),), 3)
        token[rows] = made.token
        return StepOutputs(token, torch.zeros(len(token)))

    behind.decoder.run = run  # type: ignore[method-assign]
    made = behind.generator(pads=True)
    begun = [made.start(prompt, TextOptions(9 + i)) for i, prompt in enumerate(prompts(5))]
    for prompt, found in zip(prompts(5), begun, strict=True):
        assert tokens(found)[:3] == written(prompt, 3)
    made.close()
    shapes = {step["input_ids"].shape: step["table"].shape[1] for step in behind.given}
    assert {rows for rows, seq in shapes if seq == 1} == {8, 4, 2, 1}
    assert {seq for _, seq in shapes} == {1, 128}
    assert set(shapes.values()) <= {2, 4, 8}
    table = torch.ones(1, 9, dtype=torch.int64)
    short = Generation(page=4, max_length=40)
    assert with_few_widths({"input_ids": table, "table": table}, short)["table"].tolist() == [[*[1] * 9, 0]]


def test_no_width_is_one_for_which_torch_compiles_apart() -> None:
    given = {"input_ids": [[5]], "table": [[3]], "marked": [[7]], "changes": [[[2.0], [0.5]]]}
    made = with_few_widths(
        {name: torch.tensor(one) for name, one in given.items()}, Generation(4, max_length=40, vocabulary=9)
    )
    wanted = {"table": [[3, 0]], "marked": [[7, 7]], "changes": [[[2.0, 2.0], [0.5, 0.5]]]}
    assert {name: made[name].tolist() for name in wanted} == wanted


def test_groups_take_turns_where_each_step_is_begun_before_the_next_is_ordered() -> None:
    scheduler = Scheduler(Pools.of(Generation(page=4, pages=20, max_length=40)), groups=2)
    texts = [TextInProgress([1], TextOptions(9), Continuation(row, TextOptions(9), print)) for row in range(4)]
    for text in texts:
        text.continuation.prompt_tokens = 1
        scheduler.add(text)
    served: list[list[int]] = []
    for _ in range(6):
        batch = scheduler.next_batch()
        assert batch is not None
        served.append([text.continuation.row for text in batch.texts])
        step = StepOutputs(torch.zeros(2, dtype=torch.int64), torch.zeros(2))
        for text, _ in scheduler.computed(batch, step):
            text.read(scheduler.pools, 5)
        scheduler.all_read()
    assert served == [[0, 1], [2, 3]] * 3


@pytest.mark.parametrize("launches", [True, False])
def test_inputs_lie_in_one_piece_where_this_process_launches_the_stages(launches: bool) -> None:
    """For others it would use an accelerator in vain: its memory, and it could not be copied any more."""
    behind = Behind(Decoder(FULL))
    made = Generator(FULL, behind.decoder.takes, GeneratingStages(behind.submit, 1, True, launches, packs=launches))
    assert tokens(begin(made, [3, 1, 4], 6)) == written([3, 1, 4], 6)
    made.close()
    memory = {behind.given[-1][name].untyped_storage().data_ptr() for name in ("counts", "table", "sampling", "seeds")}
    assert (len(memory) == 1) == launches


def test_an_error_that_is_no_stages_ends_the_texts_in_progress_and_no_others() -> None:
    behind = Behind(Decoder(FULL))
    made, run = behind.generator(), behind.decoder.run
    behind.decoder.run = Mock(side_effect=MemoryError("no room for what is returned"))  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(MemoryError, match="no room for what is returned"):
            tokens(begin(made, [3, 1, 4], 6))
    behind.decoder.run = run  # type: ignore[method-assign]
    assert tokens(begin(made, [3, 1, 4], 6)) == written([3, 1, 4], 6)
    made.close()
