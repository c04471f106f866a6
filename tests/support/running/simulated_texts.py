"""Texts that arrive at a scheduler over simulated stages, whose steps take as long as they were measured on a GPU."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

import torch

from runtime.generation.continuation import Continuation
from runtime.generation.options import TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.batches import TextBatch, power_of_two
from runtime.generation.scheduling.padding import SEQ
from runtime.generation.scheduling.scheduler import CHUNK, Scheduler
from runtime.generation.scheduling.sequences import Pools, TextInProgress
from runtime.manifest.manifest import Generation
from runtime.options import PREFILL_SHARE

HOST = 0.001  # seconds in which the host orders a batch
GENERATION = Generation(page=256, pages=1200, max_length=4096)
_OUTPUTS = StepOutputs(torch.zeros(1024, dtype=torch.int64), torch.zeros(1024))


def seconds(rows: int, tokens: int) -> float:
    """Those of a step of 7.2 billion parameters on one H200: docs/benchmarks.md has 5.7 ms for one text, 9.1 for 32.

    A prompt of 2,000 takes 79 ms in four chunks.
    """
    if tokens > 1:
        return 0.0055 + 27.8e-6 * rows * -(-tokens // SEQ) * SEQ
    return 0.0055 + 110e-6 * power_of_two(rows)


def alone(prompt: int) -> float:
    """Seconds in which stages that share a device, and do nothing else, prefill a prompt."""
    return sum(seconds(1, min(CHUNK, prompt - start)) for start in range(0, prompt, CHUNK))


@dataclass
class Text:
    """A text that arrives: when, the tokens of its prompt and those it gets, and when each of these was written."""

    arrives: float
    prompt: int
    new: int
    written: list[float] = field(default_factory=list)
    ordered_ahead: int = -1  # batches that were ordered and not done when it came

    @property
    def waited(self) -> float:
        """The time to its first token, in times of its prefill alone."""
        return (self.written[0] - self.arrives) / alone(self.prompt)

    @property
    def gaps(self) -> list[float]:
        """Seconds between its tokens."""
        return [after - before for before, after in pairwise(self.written)]


@dataclass
class Simulation:
    """`stages` of equal parts of the model, each on a device, that a scheduler on the host orders batches from."""

    texts: Sequence[Text]
    stages: int = 1
    share: float = PREFILL_SHARE
    factor: float = 1.0  # of the seconds of each step
    scheduler: Scheduler = field(init=False)
    _now: float = 0.0
    _last_read: float = 0.0
    _free: list[float] = field(init=False)  # when each stage is
    _done: dict[TextInProgress, float] = field(default_factory=dict)  # when a text's last step is
    _under_way: deque[tuple[float, float, list[tuple[TextInProgress, int]]]] = field(default_factory=deque)
    _of: dict[Continuation, Text] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(Pools.of(GENERATION), self.stages, prefill_share=self.share)
        self._free = [0.0] * self.stages

    def run(self) -> float:
        """Write all texts; returns when the last one was."""
        coming = deque(sorted(self.texts, key=lambda text: text.arrives))
        while coming or self._under_way:
            first = min(coming[0].arrives if coming else inf, self._under_way[0][0] if self._under_way else inf)
            self._now = max(self._now, first)
            while self._under_way and self._under_way[0][0] <= self._now:
                self._read(*self._under_way.popleft())
            while coming and coming[0].arrives <= self._now:
                self._add(coming.popleft())
            while (batch := self.scheduler.next_batch()) is not None:
                self._order(batch)
        return max(text.written[-1] for text in self.texts)

    def _add(self, text: Text) -> None:
        options, number = TextOptions(text.new), len(self._of)
        continuation = Continuation(number, options, print)
        continuation.prompt_tokens = text.prompt
        text.ordered_ahead = len(self._under_way)
        self._of[continuation] = text
        self.scheduler.add(TextInProgress([number] * text.prompt, options, continuation))

    def _order(self, batch: TextBatch) -> None:
        """A step starts once the tokens that it reads are written; the chunks of a prompt follow each other."""
        self._now += HOST
        fills = max(batch.counts) > 1
        known = [] if fills else [self._done[text] for text in batch.texts if text in self._done]
        end: float = max(self._now, *known, 0.0)
        for stage in range(self.stages):
            end = max(end, self._free[stage])
            end += self.factor * seconds(len(batch.texts), max(batch.counts)) / self.stages
            self._free[stage] = end
        self._done |= dict.fromkeys(batch.texts, end)
        self._under_way.append((end, self._now, self.scheduler.computed(batch, _OUTPUTS)))

    def _read(self, end: float, since: float, told: list[tuple[TextInProgress, int]]) -> None:
        self.scheduler.all_read(self._now - max(self._last_read, since))
        self._last_read = self._now
        for progress, _ in told:
            progress.read(self.scheduler.pools, 1)
            text = self._of[progress.continuation]
            if len(text.written) < text.new:
                text.written.append(end)
                if len(text.written) == text.new:
                    self.scheduler.remove(progress)


def mixed(rate: float = 0.0, new: int = 160, count: int = 128) -> list[Text]:
    """Texts of 200 to 2,000 tokens, all there at once, or arriving at random at so many a second."""
    draw, at = random.Random(0), 0.0
    made: list[Text] = []
    for number in range(count):
        made.append(Text(at, random.Random(number).randint(200, 2000), new))
        at += draw.expovariate(rate) if rate else 0.0
    return made
