"""A text in progress: its tokens, its pages, and how much of it the pools hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from runtime.generation.continuation import Continuation
from runtime.generation.options import TextOptions
from runtime.generation.outputs import StepOutputs
from runtime.generation.prompts.media import TextMedia
from runtime.generation.scheduling.pages import TRASH, Pages, prefixes_of
from runtime.manifest.manifest import Generation

TokenMark = tuple[int, float, float]  # a token, the penalty that divides its logit, and what is added
NO_CHANGE: list[TokenMark] = [(0, 1.0, 0.0)]
"""The marks of a text none of whose logits change."""


@dataclass(frozen=True)
class Pools:
    """The pages of an artifact: of the layers that attend to the whole text, and of those that slide; and its slots."""

    page: int  # tokens a page
    full: Pages
    sliding: Pages
    slots: Pages  # each of a text; none unless layers keep a state of the text as a whole
    source: Pages  # of what layers know of the sources of texts
    window: int  # tokens that sliding layers look at; 0 if there are none
    cached: bool = True  # whether the pools hold anything

    @classmethod
    def of(cls, generation: Generation) -> Pools:
        """The pools of an artifact, all free."""
        counts = generation.pages, generation.window_pages, generation.slots, generation.source_pages
        full, sliding, slots, source = map(Pages, counts)
        return cls(generation.page, full, sliding, slots, source, generation.window, generation.cached)

    @property
    def shares(self) -> bool:
        """Whether texts with a common prefix can share its pages: those hold all there is of it."""
        return self.cached and not (self.window or self.slots.count or self.source.count)

    @property
    def repeats(self) -> bool:
        """Whether a step that failed can run again: pages are written alike, a state has moved on."""
        return not self.slots.count


@dataclass(frozen=True, eq=False)
class TextSource:
    """The input of an encoder for one text, and the number of states that it makes of it."""

    given: torch.Tensor  # int64[seq] of ids, or others of a fixed shape
    states: int


@dataclass(eq=False)
class TextInProgress:
    """A prompt and what was written behind it.

    The pools hold its first `length` tokens; all that lies behind is computed from the tokens, at any time and more
    than once.  The `continuation` is told each new token, once it is read: the device may be some tokens ahead.
    """

    tokens: list[int]
    options: TextOptions
    continuation: Continuation
    length: int = 0
    pages: list[int] = field(default_factory=list)
    window_pages: list[int] = field(default_factory=list)
    left: int = 0  # pages that left the window
    slot: int = TRASH
    source: TextSource | None = None  # what an encoder reads of it
    source_pages: list[int] = field(default_factory=list)
    media: TextMedia | None = None  # what stands before it, which its first step takes with the whole prompt
    running: bool = False  # in a batch of which nothing is known yet
    unread: int = 0  # tokens that the stages have written, and the host has not read
    step: StepOutputs | None = None  # that wrote its last token, if one did ...
    row: int = 0  # ... and the row of that
    admitted: bool = False  # whether it has pages
    moves: int = 0  # changes of its pages, and of its slot
    served: int = 0  # the number of the last batch that it was in
    due: int = 0  # tokens of prompts that are computed once its own are, if none overtakes it
    failures: int = 0  # batches in a row that failed
    written: int = field(init=False)  # its tokens, those included that are not read yet
    _prefixes: list[bytes] = field(default_factory=list)
    _named: int = 0  # pages that others may share
    _grown: int = 0  # tokens of which it has all pages

    def __post_init__(self) -> None:
        self.written = len(self.tokens)

    @property
    def new(self) -> int:
        """The number of tokens that the pools do not hold."""
        return self.written - self.length

    @cached_property
    def ahead(self) -> int:
        """The number of its tokens from which on no step is ordered before they are read: they may have a say in it."""
        return 0 if self.options.reads_tokens else self.continuation.prompt_tokens + self.options.new

    @property
    def room(self) -> int:
        """The number of tokens that may follow."""
        return self.continuation.prompt_tokens + self.options.new - self.written

    @property
    def starts(self) -> bool:
        """Whether its next step reads its source."""
        return self.source is not None and not self.length

    @property
    def looks(self) -> bool:
        """Whether its next step takes media."""
        return self.media is not None and not self.length

    @property
    def goes_on(self) -> bool:
        """Whether it needs no page for one token more, and its next step may be beside others of any kind."""
        return not self.failures and 0 < self.length < self._grown

    def marks(self) -> list[TokenMark]:
        """The tokens whose logits change, one at least: each with the penalty that divides, and what is added."""
        if self.options.changes_nothing:
            return NO_CHANGE
        sampling = self.options.sampling
        first = sampling.suppressed_first if self.written == self.continuation.prompt_tokens else ()
        bias = dict(sampling.logit_bias) | dict.fromkeys((*sampling.suppressed, *first), float("-inf"))
        bias |= self.options.rules.changes(self.tokens, self.written, self.room, self.options.stop)
        repeated = set(self.tokens) if sampling.repetition_penalty != 1 else set[int]()
        tokens = sorted(repeated | bias.keys()) or [0]
        return [(t, sampling.repetition_penalty if t in repeated else 1.0, bias.get(t, 0.0)) for t in tokens]

    def needed(self, pools: Pools, length: int) -> int:
        """The pages that it lacks to hold `length` tokens."""
        return max(0, _pages(length, pools.page) - len(self.pages))

    def grow(self, pools: Pools, length: int) -> bool:
        """Own the pages of `length` tokens; False, and nothing changes, if too few are free."""
        if length <= self._grown:
            return True
        full = self.needed(pools, length)
        sliding = max(0, _pages(length, pools.page) - self.left - len(self.window_pages)) if pools.window else 0
        slots = 1 if pools.slots.count and self.slot == TRASH else 0
        source = _pages(self.source.states, pools.page) - len(self.source_pages) if self.source else 0
        if not (full or sliding or slots or source):
            self._grown = length
            return True
        wanted = {pools.full: full, pools.sliding: sliding, pools.slots: slots, pools.source: source}
        if any(count > kind.free for kind, count in wanted.items()):
            return False
        self.moves += 1
        if slots:
            self.slot = pools.slots.take()
        self.pages += [pools.full.take() for _ in range(full)]
        self.window_pages += [pools.sliding.take() for _ in range(sliding)]
        self.source_pages += [pools.source.take() for _ in range(source)]
        self._grown = _pages(length, pools.page) * pools.page
        return True

    def computed(self, pools: Pools, count: int, step: StepOutputs, row: int) -> bool:
        """A step has taken `count` of its new tokens, in a row.  Returns whether it writes the next one."""
        self.failures = 0
        writes = count == self.written - self.length
        if pools.cached:
            self._advance(pools, count)
        if writes:
            self.written += 1
            self.unread += 1
            self.step, self.row = step, row
        return writes

    def _advance(self, pools: Pools, count: int) -> None:
        """The pools hold `count` more tokens: full pages may be shared now, those behind the window are free."""
        self.length += count
        if self.length % pools.page < count:
            self._name_pages(pools)
        while self.window_pages and (self.left + 1) * pools.page <= self.length - pools.window + 1:
            pools.sliding.give([self.window_pages.pop(0)])
            self.left += 1
            self.moves += 1

    def read(self, pools: Pools, token: int) -> None:
        """The first of its unread tokens is known."""
        self.unread -= 1
        self.tokens.append(token)
        if len(self.tokens) % pools.page == 0:
            self._name_pages(pools)

    def _name_pages(self, pools: Pools) -> None:
        """Full pages whose tokens are known may be shared."""
        full = min(self.length, len(self.tokens)) // pools.page
        if self._named < full and self._shares(pools):
            for i in range(self._named, full):
                pools.full.name(self.pages[i], self.prefixes(pools)[i])
            self._named = full

    def begin(self, pools: Pools) -> None:
        """Take over the pages that hold its first tokens already, so that at least one token stays to be computed."""
        if self._shares(pools):
            self.moves += 1
            self.pages = pools.full.share(self.shareable(pools))
            self._named = len(self.pages)
            self.length = self._named * pools.page

    def _shares(self, pools: Pools) -> bool:
        """Whether its tokens tell all there is of its prefixes."""
        return pools.shares and self.media is None

    def prefixes(self, pools: Pools) -> list[bytes]:
        """The digests of its prefixes that end with a full page, each made once, as tokens only join."""
        if len(self._prefixes) < len(self.tokens) // pools.page:
            self._prefixes = prefixes_of(self.tokens, pools.page, self._prefixes, self.options.adapter)
        return self._prefixes

    def shareable(self, pools: Pools) -> list[bytes]:
        """Those of its prefixes that leave a token to be computed."""
        return self.prefixes(pools)[: (len(self.tokens) - 1) // pools.page]

    def release(self, pools: Pools) -> None:
        """Give up all pages, and the slot."""
        self.moves += 1
        pools.slots.give([self.slot] if self.slot != TRASH else [])
        pools.source.give(self.source_pages)
        pools.full.give(self.pages)
        pools.sliding.give(self.window_pages)
        self.pages, self.window_pages, self.source_pages = [], [], []
        self.left, self.slot, self.length, self._named, self._grown = 0, TRASH, 0, 0, 0


def _pages(length: int, page: int) -> int:
    return -(-length // page)


def common(text: TextInProgress, others: Sequence[TextInProgress], pools: Pools) -> bool:
    """Whether one of the others is about to compute a page that this text could share."""
    others = [other for other in others if other.media is None]
    if not pools.shares or text.media is not None or not others:
        return False
    mine = text.shareable(pools)
    missing = next((i for i, prefix in enumerate(mine) if prefix not in pools.full.known), len(mine))
    if missing == len(mine):
        return False
    return any(o.prefixes(pools)[missing : missing + 1] == [mine[missing]] for o in others)
