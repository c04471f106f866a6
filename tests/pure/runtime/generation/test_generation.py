"""Texts that are continued, over a decoder of a few lines whose pool holds the ids that it was given."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from runtime.errors import InputError, PipelineClosed, StageError
from runtime.generation.continuation import Continuation
from runtime.generation.generator import Generator
from runtime.generation.options import Sampling, TextOptions, text_options
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.pages import TRASH, Pages, prefixes_of
from runtime.generation.scheduling.sequences import TextInProgress
from runtime.generation.scheduling.widths import SourceWidths
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import CallSignature, Generation, ProgramEntry, Symbol
from runtime.manifest.manifest import Tensor as ManifestTensor

VOCABULARY, END = 97, 7
FULL = Generation(page=4, pages=40, max_length=64, vocabulary=VOCABULARY, stop=(END,))
SLIDING = Generation(page=4, pages=40, window=8, window_pages=20, max_length=64, vocabulary=VOCABULARY, stop=(END,))


def following(tokens: Sequence[int]) -> int:
    """The token behind these: any change of one of them changes it."""
    total = 1
    for token in tokens:
        total = (total * 31 + token + 1) % 1_000_003
    return total % VOCABULARY


def written(prompt: Sequence[int], new: int, window: int = 0) -> list[int]:
    """What the decoder writes behind a prompt, the id that ended it included."""
    tokens = [*prompt]
    while len(tokens) < len(prompt) + new and (len(tokens) == len(prompt) or tokens[-1] != END):
        tokens.append(following(tokens[-window:]))
    return tokens[len(prompt) :]


@dataclass
class Decoder:
    """Keeps ids in pages as a decoder keeps keys: what it reads of a row comes from the pool alone."""

    generation: Generation
    pool: dict[tuple[int, int], int] = field(default_factory=dict)
    batches: list[tuple[int, int]] = field(default_factory=list)  # rows and width of each
    computed: int = 0  # tokens, padding apart
    faults: int = 0  # batches that are to fail
    poison: int = -1  # an id that fails its batch
    at_once: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def takes(self) -> list[str]:
        sliding = ["window_table", "window_first"] if self.generation.window else ["table"]
        return ["input_ids", "lengths", "counts", *sliding, "sampling", "seeds"]

    def submit(self, given: Mapping[str, Tensor], ready: Sequence[Any] = ()) -> Future[StepOutputs]:
        return self.at_once.submit(self.run, **{name: tensor.tolist() for name, tensor in given.items()})

    def run(self, input_ids: Any, lengths: Any, counts: Any, **given: Any) -> StepOutputs:
        self.batches.append((len(input_ids), len(input_ids[0])))
        if self.faults:
            self.faults -= 1
            raise StageError(1, "cpu", ValueError("lost"))
        if any(self.poison in row for row in input_ids):
            raise StageError(1, "cpu", ValueError("poison"))
        tables = given.get("table") or given["window_table"]
        firsts = given.get("window_first") or [0] * len(tables)
        rows = zip(input_ids, lengths, counts, tables, firsts, strict=True)
        return StepOutputs(torch.tensor([self._row(*row) for row in rows]), torch.zeros(len(lengths)))

    def _row(self, ids: list[int], length: int, count: int, table: list[int], first: int) -> int:
        page = self.generation.page
        self.computed += count
        for at, token in enumerate(ids[len(ids) - count :], length - first):
            assert table[at // page] != TRASH
            self.pool[table[at // page], at % page] = token
        begin = max(length + count - (self.generation.window or length + count), 0)
        return following(
            [self.pool[table[(i - first) // page], (i - first) % page] for i in range(begin, length + count)]
        )


@dataclass
class Recurrence:
    """Keeps one state a text, the ids until now, which a step that is repeated would spoil."""

    generation: Generation
    states: dict[int, list[int]] = field(default_factory=dict)
    batches: list[tuple[int, int]] = field(default_factory=list)
    faults: tuple[int, ...] = ()  # the numbers of batches that fail when they have changed the states
    at_once: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    takes = ("input_ids", "lengths", "counts", "slots")

    def submit(self, given: Mapping[str, Tensor], ready: Sequence[Any] = ()) -> Future[StepOutputs]:
        return self.at_once.submit(self.run, **{name: tensor.tolist() for name, tensor in given.items()})

    def run(self, input_ids: Any, lengths: Any, counts: Any, slots: Any) -> StepOutputs:
        self.batches.append((len(input_ids), len(input_ids[0])))
        assert set(counts) == {len(input_ids[0])}, "no padding"
        assert len(set(slots)) == len(slots)
        assert TRASH not in slots
        for ids, length, slot in zip(input_ids, lengths, slots, strict=True):
            before = self.states[slot] if length else []
            assert len(before) == length
            self.states[slot] = [*before, *ids]
        if len(self.batches) in self.faults:
            raise StageError(1, "cpu", ValueError("lost"))
        token = torch.tensor([following(self.states[slot]) for slot in slots])
        return StepOutputs(token, torch.zeros(len(slots)))


@contextmanager
def generator(decoder: Decoder | Recurrence, stages: int = 2, chunk: int = 6) -> Iterator[Generator]:
    made = Generator(decoder.generation, decoder.takes, GeneratingStages(decoder.submit, stages))
    made._scheduler.chunk = chunk
    yield made
    made.close()
    decoder.at_once.shutdown()


def begin(made: Generator, prompt: Sequence[int], new: int = 12) -> Continuation:
    return made.start(prompt, TextOptions(new, stop=frozenset([END])))


def tokens(found: Continuation) -> list[int]:
    found.result(timeout=30)
    return [step.token for step in found.steps]


def prompts(count: int, seed: int = 0, longest: int = 20) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(8, VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(count)]


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
            begun[3].result(timeout=30)
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
            found.result(timeout=30)
        assert tokens(begin(made, [3, 4], 3)) == written([3, 4], 3)


def test_closing_ends_what_is_not_done() -> None:
    decoder = Decoder(Generation(page=4, pages=40, max_length=144, vocabulary=VOCABULARY))
    with generator(decoder) as made:
        long = made.start([1, 2], TextOptions(140))
        made.close()
        with pytest.raises(PipelineClosed):
            long.result(timeout=30)
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
    sampled = TextInProgress([1], TextOptions(4, Sampling(0.5, 3, 0.75, 0.25)), Continuation(0, plain.options, id))
    assert TextBatch((plain, sampled), (1, 1)).sampling().tolist() == [[0, 0, 1, 0], [0.5, 3, 0.75, 0.25]]


@pytest.mark.parametrize(
    ("sampling", "ranks"),
    [(Sampling(), 1), (Sampling(1.0, 50), 64), (Sampling(1.0, top_p=0.9), 97), (Sampling(1.0, 64), 97)],
)
def test_as_many_tokens_are_sorted_as_may_be_drawn(sampling: Sampling, ranks: int) -> None:
    options = TextOptions(4, sampling)
    text = TextInProgress([5], options, Continuation(0, options, lambda _: None))
    assert len(TextBatch((text,), (1,)).ranks(VOCABULARY)) == ranks


# ---- pages


def test_room_for_other_tokens_scales_all_pools() -> None:
    """Planned are 10 texts of 32 tokens; each has 4 pages of sliding layers, and a slot."""
    planned = Generation(page=8, pages=41, window=9, window_pages=41, slots=11, max_length=32)
    assert planned.with_room_for(0) is planned
    assert planned.with_room_for(64).sizes == {"pages": 9, "window_pages": 9, "slots": 3, "source_pages": 0}
    assert planned.with_room_for(20).sizes == {"pages": 4, "window_pages": 5, "slots": 2, "source_pages": 0}


def test_pages_that_nobody_owns_are_kept_until_room_is_needed() -> None:
    pages = Pages(4)
    first, second = prefixes_of(range(8), 4)
    mine = [pages.take(), pages.take()]
    for page, prefix in zip(mine, (first, second), strict=True):
        pages.name(page, prefix)
    pages.give(mine)
    assert pages.free == 3
    assert pages.share([first, second, b"other"]) == mine
    assert pages.free == 1
    pages.give(mine)
    assert [pages.take() for _ in range(3)] == [3, *mine]  # the empty one first, then the longest unused
    assert pages.share([first]) == []
    with pytest.raises(IndexError, match="no page is free"):
        pages.take()


def test_a_page_is_free_when_its_last_owner_gives_it_up() -> None:
    pages = Pages(3)
    page = pages.take()
    pages.name(page, b"prefix")
    assert pages.share([b"prefix"]) == [page]
    pages.give([page])
    assert pages.free == 1
    pages.give([page])
    assert pages.free == 2


def test_a_source_is_padded_to_a_width_that_the_encoder_takes() -> None:
    symbols = {"batch": Symbol(1, None, 2), "width": Symbol(2, None, 6)}
    call = CallSignature((), {}, {})
    tensor = ManifestTensor("source", "int64", ("batch", "width"))
    program = ProgramEntry("start", (tensor,), (), symbols, ("(width % 5) != 0",), call, ())
    widths = SourceWidths.of(program, 20)
    found = [widths.padded({"source": torch.ones(1, n)})["source"].shape[1] for n in (1, 2, 4, 5, 10)]
    assert found == [2, 2, 4, 6, 11]


# ---- options

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


def test_a_text_without_a_length_ends_where_the_model_is_full() -> None:
    assert text_options(FULL, 5, {}) == TextOptions(59, stop=frozenset([END]))
    given = {"do_sample": False, "max_length": 8, "eos_token_id": [3, 4], "stop": "\n"}
    assert text_options(SAYS, 5, given) == TextOptions(3, stop=frozenset([3, 4]), ends=("\n",))


@pytest.mark.parametrize(
    ("prompt", "given", "message"),
    [
        (20, {}, "the prompt has 20 tokens, and a text of this artifact at most 20 with what follows"),
        (5, {"max_new_tokens": 0}, "max_new_tokens is 0, which leaves no token to write"),
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
    ],
)
def test_options_that_make_no_sense(prompt: int, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as said:
        text_options(SAYS, prompt, given)
    assert message in str(said.value)
