"""The choice of texts for the next batch: admission by free pages, prefill in chunks, preemption."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import attrgetter

from runtime.generation.outputs import StepOutputs
from runtime.generation.scheduling.batches import TextBatch
from runtime.generation.scheduling.sequences import Pools, TextInProgress, common
from runtime.options import PREFILL_SHARE

CHUNK = 512  # tokens of a prefill in one batch, padding included
TRIES = 3  # batches with a text that may fail in a row
LEAST_AHEAD, STEPS_AHEAD = 2, 4  # batches of a group whose tokens the host has not read
SLACK = 0.005  # seconds that the host may be late: Python's own threads take turns of so many


@dataclass(eq=False)
class Scheduler:
    """Texts wait for pages, run in batches of which `groups` are in the stages at once, and leave.

    A batch is of texts that have one new token each, or of such that have more: prefill, of which at most `CHUNK`
    tokens are computed at once.  The two take turns, as `prefill_share` says.  Where no page is free, the text that
    came last gives its pages up, and is prefilled again when there is room.

    Prompts are prefilled in the order in which each would be done if it were alone: a short one overtakes a long one,
    but only if it comes before as many tokens as that has were prefilled.

    A batch that stages on accelerators have begun counts as `unread` until the host knows its tokens; further steps of
    its texts are ordered meanwhile: about as many as last for `SLACK` behind the one that runs, as a text that comes
    waits for all that are ordered.
    """

    pools: Pools
    groups: int
    chunk: int = CHUNK
    most: int = 0  # new tokens of one text in a batch; 0: those of a chunk
    together: str = "any"  # the texts that a batch may have: see `Generation`
    prefill_share: float = PREFILL_SHARE  # of the batches, while some texts are prefilled and others are not
    waiting: deque[TextInProgress] = field(default_factory=deque)
    active: list[TextInProgress] = field(default_factory=list)  # those with pages, in the order of their admission
    in_flight: int = 0  # batches of which nothing is known yet
    unread: int = 0
    ahead: int = LEAST_AHEAD  # the number of unread batches of a group behind which no further one is ordered
    _batches: int = 0
    _filled: int = 0  # tokens of prompts that were ordered
    _owed: float = 1.0  # batches of prefill whose turn it is

    def add(self, text: TextInProgress) -> None:
        text.due = self._filled + text.new
        self.waiting.append(text)

    def remove(self, text: TextInProgress) -> None:
        """A text is done, or nobody wants it any more: its pages are free at once.

        The stages run batches in order: what one in flight still writes there is overwritten by the next owner.
        """
        if text.admitted:
            self._dismiss(text)
        elif text in self.waiting:
            self.waiting.remove(text)

    @property
    def is_busy(self) -> bool:
        """Whether something comes of a batch yet."""
        return self.in_flight + self.unread > 0

    def next_batch(self) -> TextBatch | None:
        """The next batch for the stages; None while they have enough, or nothing can run."""
        if self.in_flight >= self.groups or self.in_flight + self.unread >= self.groups * self.ahead:
            return None
        self._admit()
        most = self.ahead if self.pools.cached else 1
        idle = [
            text
            for text in self.active
            if not text.running and text.unread < most and (not text.unread or text.written < text.ahead)
        ]
        fill = [text for text in idle if text.written > text.length + 1]
        decode = [text for text in idle if text.written == text.length + 1] if fill else idle
        fill.sort(key=attrgetter("due"))
        decode.sort(key=attrgetter("served"))  # or one group would go on alone
        batch = next((made for some in self._in_turn(fill, decode) if (made := self._batch(some)) is not None), None)
        if batch is not None:
            self.in_flight += 1
            self._batches += 1
            self._filled += sum(batch.counts) if max(batch.counts) > 1 else 0
            for text in batch.texts:
                text.running, text.served = True, self._batches
        return batch

    def computed(self, batch: TextBatch, step: StepOutputs) -> list[tuple[TextInProgress, int]]:
        """The stages fill the pools with the tokens of a batch.

        Returns the texts whose next token the batch writes, with its row: `read` is called with each, then `all_read`.
        """
        self.unread += 1
        pools = self.pools
        return [(text, row) for row, text, count in self._landed(batch) if text.computed(pools, count, step, row)]

    def all_read(self, took: float = 0.0) -> None:
        """The host knows the tokens of the oldest batch that was unread, `took` seconds after those of the one before.

        Where it was ordered later than that, `took` are those since then.
        """
        self.unread -= 1
        step = took * min(self.groups, max(len(self.active), 1))  # each group's own; those of several take turns
        self.ahead = max(LEAST_AHEAD, min(STEPS_AHEAD, 1 + round(SLACK / step))) if step else STEPS_AHEAD

    def failed(self, batch: TextBatch) -> list[TextInProgress]:
        """A batch was lost; its texts run again, each alone.  Returns those that fail again and again."""
        lost = [text for _, text, _ in self._landed(batch)]
        for text in lost:
            text.failures += 1
            if not self.pools.repeats:
                self._give_up(text)
        return [text for text in lost if text.failures >= TRIES]

    def _landed(self, batch: TextBatch) -> list[tuple[int, TextInProgress, int]]:
        """The texts of a batch that has left the stages, without those that were removed meanwhile.

        Each with its row, and its new tokens.
        """
        self.in_flight -= 1
        for text in batch.texts:
            text.running = False
        rows = enumerate(zip(batch.texts, batch.counts, strict=True))
        return [(row, text, count) for row, (text, count) in rows if text.admitted]

    def _give_up(self, text: TextInProgress) -> None:
        """A text gives its pages to others, and is prefilled again when there is room."""
        self._dismiss(text)
        self.waiting.appendleft(text)

    def _dismiss(self, text: TextInProgress) -> None:
        self.active.remove(text)
        text.admitted = False
        text.release(self.pools)

    # ---- admission

    def _admit(self) -> None:
        """Those that wait get pages in their order, as long as each that has some could still get one more."""
        while self.waiting:
            text = self.waiting[0]
            if text.unread:
                return  # it is prefilled with tokens that are not known yet
            if common(text, [t for t in self.active if t.length < len(t.tokens) - 1], self.pools):
                return  # what it has in common with another is there soon
            text.begin(self.pools)
            enough = text.needed(self.pools, len(text.tokens)) + len(self.active) <= self.pools.full.free
            if not (enough and text.grow(self.pools, text.length + self._count(text))):
                text.release(self.pools)
                return
            text.admitted = True
            self.active.append(self.waiting.popleft())

    # ---- batches

    def _in_turn(
        self, fill: list[TextInProgress], decode: list[TextInProgress]
    ) -> tuple[list[TextInProgress], list[TextInProgress]]:
        """Texts to prefill and such that have one new token, those first whose turn it is."""
        if not fill:  # a text that comes now is prefilled by as many chunks as if a step had just been between chunks
            self._owed = max(self._owed, 2 * self.prefill_share)
        if not (fill and decode):
            return fill, decode
        due = [text for text in decode if not (text.unread and self._batches - text.served < self.groups - 1)]
        decode = due or decode  # a text whose last step is under way has stages wait: chunks are there for these
        is_due = self._owed >= 1
        self._owed += self.prefill_share - is_due
        return (fill, decode) if is_due else (decode, fill)

    def _batch(self, idle: list[TextInProgress]) -> TextBatch | None:
        """As many of these texts as a batch takes, each with room for its new tokens."""
        first = idle[: self._share] if idle and idle[0].new == 1 else ()
        if first and self.together == "any" and all(text.goes_on for text in first):  # as nearly always
            return TextBatch(tuple(first), (1,) * len(first))
        texts: list[TextInProgress] = []
        counts: list[int] = []
        widest, alone = 0, False
        for text in idle:
            count = self._count(text)
            if texts and (alone or self._runs_alone(text) or self._is_full(len(texts) + 1, max(widest, count))):
                break
            if texts and self.together != "any" and self._kind(text, count) != self._kind(texts[0], counts[0]):
                continue
            if text.admitted and self._make_room(text, text.length + count, keep=texts):
                alone = alone or self._runs_alone(text)
                texts.append(text)
                counts.append(count)
                widest = max(widest, count)
            elif text.admitted and any(t.unread for t in self.active[self.active.index(text) :]):
                break  # those that came later give their pages up once their tokens are read
        return TextBatch(tuple(texts), tuple(counts)) if texts else None

    def _count(self, text: TextInProgress) -> int:
        """The tokens of a text that its next batch takes."""
        new = text.new
        if text.looks:  # media stand before the prompt alone: what it wrote before it gave its pages up comes in chunks
            return text.continuation.prompt_tokens
        whole = new == 1 or not self.pools.cached
        return new if whole else min(new, self.chunk, self.most or self.chunk)

    def _kind(self, text: TextInProgress, count: int) -> tuple[int, ...]:
        """A property that all texts of a batch have in common."""
        match self.together:
            case "even":
                return (count, text.starts)
            case "equal":
                return (count, text.length)
        return ()

    def _runs_alone(self, text: TextInProgress) -> bool:
        return self.together == "alone" or text.failures > 0 or text.looks

    def _is_full(self, rows: int, widest: int) -> bool:
        """Whether so many rows are too many: padded tokens of a prefill, or more than a group's share of the texts."""
        return rows * widest > self.chunk if widest > 1 else rows > self._share

    @property
    def _share(self) -> int:
        """A group's share of the texts."""
        return -(-len(self.active) // self.groups)

    def _make_room(self, text: TextInProgress, length: int, keep: list[TextInProgress]) -> bool:
        """Give a text the pages of `length` tokens, those of the text that came last if there is no other way."""
        while not text.grow(self.pools, length):
            others = (t for t in reversed(self.active) if t is not text and t not in keep)
            last = next((t for t in others if not (t.running or t.unread)), None)
            if last is None or self.active.index(last) < self.active.index(text):
                return False
            self._give_up(last)
        return True
