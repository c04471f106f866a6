"""Texts that are continued, over a decoder of a few lines whose pool holds the ids that it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.errors import InputError, PipelineClosed, StageError, StageLost
from runtime.generation.continuation import Continuation
from runtime.generation.options import Sampling, TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.sequences import TextInProgress
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
    generator,
    prompts,
    tokens,
    written,
)


@pytest.mark.parametrize("generation", [FULL, SLIDING], ids=["full", "sliding"])
@pytest.mark.parametrize("stages", [1, 3])
def test_texts_of_any_lengths_share_batches(generation: Generation, stages: int) -> None:
    decoder = Decoder(generation)
    with generator(decoder, stages) as made:
        begun = [begin(made, prompt) for prompt in prompts(12)]
        for prompt, found in zip(prompts(12), begun, strict=True):
            assert tokens(found) == written(prompt, 12, generation.window)
        pools = made._scheduler.pools
        assert pools.full.free == generation.pages - 1 or generation.window
        assert not generation.window or pools.sliding.free == generation.window_pages - 1
    assert max(rows for rows, _ in decoder.batches) > 1
    assert max(width for _, width in decoder.batches) <= 6


def test_texts_that_have_no_room_wait_or_give_their_pages_up() -> None:
    """9 pages, of which one text takes up to 8."""
    decoder = Decoder(Generation(page=4, pages=10, max_length=64, vocabulary=VOCABULARY))
    with generator(decoder) as made:
        begun = [made.start(prompt, TextOptions(12)) for prompt in prompts(8)]
        for prompt, found in zip(prompts(8), begun, strict=True):
            assert tokens(found)[:3] == written(prompt, 3)
            assert len(found.steps) == 12
        assert made._scheduler.pools.full.free == 9
    assert decoder.computed > sum(map(len, prompts(8))) + 8 * 11  # some were computed again


@pytest.mark.parametrize("make", [lambda: Decoder(FULL), lambda: Recurrence(replace(FULL, slots=9, together="even"))])
def test_a_text_goes_on_behind_what_was_written_of_it(make: Callable[[], Decoder | Recurrence]) -> None:
    """As if it had not been interrupted, to the same end."""
    with generator(make()) as made:
        for prompt in prompts(6):
            whole = written(prompt, 12)
            for known in range(len(whole) + 1):
                text = made.start(prompt, TextOptions(12, stop=frozenset([END])), written=whole[:known])
                assert tokens(text) == whole
                assert text.prompt_tokens == len(prompt)
                assert [step.done for step in text.steps] == [False] * (len(whole) - 1) + [True]


def test_a_prefix_is_computed_once() -> None:
    decoder = Decoder(FULL)
    prefix = prompts(1, longest=20)[0] * 20
    with generator(decoder) as made:
        begun = [begin(made, [*prefix[:20], 9 + i], 1) for i in range(5)]
        assert [tokens(found) for found in begun] == [written([*prefix[:20], 9 + i], 1) for i in range(5)]
    assert decoder.computed == 20 + 5


def test_a_batch_that_fails_costs_no_text() -> None:
    decoder = Decoder(FULL, faults=2)
    with generator(decoder) as made:
        begun = [begin(made, prompt) for prompt in prompts(5)]
        assert [tokens(found) for found in begun] == [written(prompt, 12) for prompt in prompts(5)]


def test_a_text_that_fails_by_itself_is_lost_alone() -> None:
    decoder = Decoder(FULL, poison=VOCABULARY)
    with generator(decoder) as made:
        begun = [begin(made, prompt, 3) for prompt in [*prompts(3), [VOCABULARY], *prompts(2, seed=1)]]
        with pytest.raises(StageError, match="poison"):
            begun[3].result(timeout=PATIENCE)
        others = [found for i, found in enumerate(begun) if i != 3]
        assert [tokens(found) for found in others] == [written(p, 3) for p in [*prompts(3), *prompts(2, seed=1)]]
        assert made._scheduler.pools.full.free == FULL.pages - 1


def test_who_cancels_gets_what_there_is_and_frees_the_pages() -> None:
    decoder = Decoder(Generation(page=4, pages=40, max_length=144, vocabulary=VOCABULARY))
    with generator(decoder) as made:
        long = made.start([1, 2], TextOptions(140))
        first = next(iter(long))
        long.cancel()
        assert long.done
        assert long.result()[0] == first.token == written([1, 2], 1)[0]
        assert tokens(begin(made, [3, 4], 3)) == written([3, 4], 3)
        assert made._scheduler.pools.full.free == 39


def test_a_reader_that_raises_leaves_nobody_waiting() -> None:
    class Broken:
        def add(self, token: int, last: bool) -> tuple[str, bool]:
            raise ValueError("no such id")

    with generator(Decoder(FULL)) as made:
        found = made.start([1, 2], TextOptions(5), reader=Broken())
        with pytest.raises(ValueError, match="no such id"):
            found.result(timeout=PATIENCE)
        assert tokens(begin(made, [3, 4], 3)) == written([3, 4], 3)


def test_tokens_that_do_not_come_to_the_host_leave_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no memory is pinned")

    with generator(Decoder(FULL), stages=1) as made:
        with monkeypatch.context() as patch:
            patch.setattr(made._copies, "to_host", fail)
            for _ in range(5):
                with pytest.raises(MemoryError, match="no memory is pinned"):
                    begin(made, [1, 2]).result(timeout=PATIENCE)
        assert tokens(begin(made, [3, 4], 3)) == written([3, 4], 3)


def test_texts_of_a_lost_stage_fail_with_what_became_of_it() -> None:
    """Those in flight, and those whose next step is ordered when the pipeline is closed already."""
    lost = StageLost(1, "cpu", ConnectionError("it was killed"))
    steps = iter(range(9))

    class Lost(Decoder):
        def submit(self, given: Mapping[str, Tensor], ready: Sequence[Any] = ()) -> Future[StepOutputs]:
            if (step := next(steps)) > 5:
                raise PipelineClosed("this pipeline is closed") from lost
            return self.at_once.submit(self.run, **{n: t.tolist() for n, t in given.items()}, fails=step == 5)

        def run(self, input_ids: Any, lengths: Any, counts: Any, fails: bool = False, **given: Any) -> StepOutputs:
            if fails:
                raise lost
            return super().run(input_ids, lengths, counts, **given)

    with generator(Lost(FULL), stages=2) as made:
        for found in [begin(made, prompt) for prompt in prompts(4)]:
            with pytest.raises(StageLost, match="it was killed"):
                found.result(timeout=PATIENCE)
        with pytest.raises(StageLost, match="it was killed"):
            begin(made, [1, 2]).result(timeout=PATIENCE)


def test_closing_ends_what_is_not_done() -> None:
    decoder = Decoder(Generation(page=4, pages=40, max_length=144, vocabulary=VOCABULARY))
    with generator(decoder) as made:
        long = made.start([1, 2], TextOptions(140))
        made.close("the pipeline was reset")
        with pytest.raises(PipelineClosed, match="the pipeline was reset"):
            long.result(timeout=PATIENCE)
        with pytest.raises(PipelineClosed):
            begin(made, [1])


def test_a_text_for_which_there_is_never_room_is_refused() -> None:
    small = Generation(page=4, pages=4, max_length=64, vocabulary=VOCABULARY)
    with generator(Decoder(small)) as made, pytest.raises(InputError, match="needs 4 pages, and the artifact has 3"):
        begin(made, [1, 2, 3, 4], 9)


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("faults", [(), (2, 5, 6)])
def test_states_of_texts_lie_in_slots_and_are_computed_again_after_a_fault(chunk: int, faults: tuple[int, ...]) -> None:
    terms = Generation(page=4, pages=40, slots=8, max_length=64, vocabulary=VOCABULARY, together="even", chunk=chunk)
    decoder = Recurrence(terms, faults=faults)
    with generator(decoder) as made:
        begun = [begin(made, prompt) for prompt in [*prompts(7), [3] * 12, [4] * 12]]
        wanted = [written(prompt, 12) for prompt in [*prompts(7), [3] * 12, [4] * 12]]
        assert [tokens(found) for found in begun] == wanted
        assert made._scheduler.pools.slots.free == 7
    assert not decoder.faults
    assert max(rows for rows, _ in decoder.batches) > 1
    assert (max(width for _, width in decoder.batches) > 1) is not bool(chunk)


@pytest.mark.parametrize("together", ["equal", "alone"])
def test_texts_are_whole_in_each_batch_where_there_is_no_cache(together: str) -> None:
    terms = Generation(page=4, pages=40, max_length=64, vocabulary=VOCABULARY, together=together, cached=False)
    decoder = Recurrence(terms)
    decoder.takes = ("input_ids", "lengths", "counts")  # type: ignore[misc]

    def submit(given: Mapping[str, Tensor], ready: Sequence[Any] = ()) -> Future[StepOutputs]:
        return plain({**given, "slots": torch.arange(1, len(given["lengths"]) + 1)})

    plain, decoder.submit = decoder.submit, submit  # type: ignore[method-assign]
    with generator(decoder, chunk=60) as made:
        begun = [begin(made, prompt) for prompt in [*prompts(3), [3] * 12, [4] * 12]]
        assert [tokens(found) for found in begun] == [written(p, 12) for p in [*prompts(3), [3] * 12, [4] * 12]]
    assert (max(rows for rows, _ in decoder.batches) > 1) is (together == "equal")


def test_marks_are_of_tokens_in_the_text_and_of_those_that_are_biased() -> None:
    text = TextInProgress([5, 3, 5], TextOptions(4), Continuation(0, TextOptions(4), lambda _: None))
    assert text.marks() == [(0, 1.0, 0.0)]
    text.options = TextOptions(4, Sampling(repetition_penalty=2.0, logit_bias=((4, -1.0), (5, 1.0))))
    assert text.marks() == [(3, 2.0, 0.0), (4, 1.0, -1.0), (5, 2.0, 1.0)]
    text.options = TextOptions(4, Sampling(suppressed=(2,), suppressed_first=(7,)))
    text.continuation.prompt_tokens = 3
    never = float("-inf")
    assert text.marks() == [(2, 1.0, never), (7, 1.0, never)]
    text.continuation.prompt_tokens = 2
    assert text.marks() == [(2, 1.0, never)]
    text.options = TextOptions(4, Sampling(repetition_penalty=2.0, logit_bias=((4, -1.0), (5, 1.0))))
    plain = TextInProgress([1], TextOptions(4), Continuation(0, TextOptions(4), lambda _: None))
    marks = TextBatch((text, plain), (1, 1)).marks()
    assert marks["marked"].tolist() == [[3, 4, 5, 5], [0, 0, 0, 0]]
    assert marks["changes"].tolist() == [[[2, 1, 2, 2], [0, -1, 1, 1]], [[1, 1, 1, 1], [0, 0, 0, 0]]]
    sampled = TextInProgress(
        [1], TextOptions(4, Sampling(0.5, 3, 0.75, 0.25)), Continuation(0, plain.options, lambda _: None)
    )
    assert TextBatch((plain, sampled), (1, 1)).sampling().tolist() == [[0, 0, 1, 0], [0.5, 3, 0.75, 0.25]]


@pytest.mark.parametrize(
    ("sampling", "ranks"),
    [(Sampling(), 1), (Sampling(1.0, 50), 64), (Sampling(1.0, top_p=0.9), 97), (Sampling(1.0, 64), 97)],
)
def test_as_many_tokens_are_sorted_as_may_be_drawn(sampling: Sampling, ranks: int) -> None:
    options = TextOptions(4, sampling)
    text = TextInProgress([5], options, Continuation(0, options, lambda _: None))
    assert len(TextBatch((text,), (1,)).ranks(VOCABULARY)) == ranks
