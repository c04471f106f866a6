"""A decoder and a recurrence of a few lines, whose next token follows from all before it, and texts for them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runtime.errors import StageError
from runtime.generation.continuation import Continuation
from runtime.generation.generator import Generator
from runtime.generation.options import TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.pages import TRASH
from runtime.generation.stages import GeneratingStages
from runtime.manifest.manifest import Generation
from tests.support.patience import PATIENCE

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
    faults: Sequence[int] = ()  # from each on, the next batch of several texts fails when it has changed the states
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
        if len(slots) > 1 and self.faults and self.faults[0] <= len(self.batches):  # a text that fails alone is lost
            self.faults = self.faults[1:]
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
    found.result(timeout=PATIENCE)
    return [step.token for step in found.steps]


def prompts(count: int, seed: int = 0, longest: int = 20) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(8, VOCABULARY) for _ in range(draw.randint(1, longest))] for _ in range(count)]
