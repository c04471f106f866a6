"""Texts in progress: what an engine writes goes to who asked, and a text whose engine is lost goes on in another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.serving.admission import MOST_DEATHS, NotServing, Overloaded, RequestFailed
from runtime.serving.engines.messages import EngineMessage

_RETRY_AFTER = 5  # seconds


@dataclass(frozen=True)
class Token:
    """A token of a text: what it adds, its log probability, and why it is the last one; empty if it is not."""

    token: int
    text: str
    logprob: float
    reason: str


@dataclass(eq=False)
class ServedText:
    """A text in progress.  `options` hold a seed: another engine goes on as the first one would have."""

    prompt: Any
    options: Mapping[str, Any]
    news: asyncio.Queue[TextNews]  # its tokens, then None or the error that ended it
    number: int
    engine: int | None = None  # that writes it; None while none is ready
    prompt_tokens: int = 0
    written: list[int] = field(default_factory=list)  # its tokens, which were handed on
    begun_at: int = 0  # the number of them that the present engine did not write
    deaths: int = 0  # of engines that it alone may have ended, since it went on
    losses: int = 0  # of engines that wrote it, since then

    @property
    def goes_on(self) -> bool:
        """Whether the present engine writes token by token: the first one comes of another step, that of a prompt."""
        return len(self.written) > self.begun_at + 1

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what ends engines: two were lost that wrote it, and it did not go on in between."""
        return self.losses >= 2


TextNews = tuple[ServedText, Token | Exception | None]


class Texts:
    """The texts of some engines, each of which shares its batches among its texts.

    The texts that a lost engine wrote go on in another one, or in the next, behind their tokens.  Those that are
    suspect do so one by one: no other text begins on their engine until they go on.
    """

    def __init__(self, send: Callable[[int, EngineMessage], None], most: int) -> None:
        """`send`: a message to an engine; `most`: texts that may be in progress."""
        self._send = send
        self.most = most
        self._ready: set[int] = set()  # numbers of engines
        self._closed = ""
        self._texts: dict[int, ServedText] = {}
        self._numbers = 0

    @property
    def in_progress(self) -> int:
        return len(self._texts)

    def begin(self, prompt: Any, options: Mapping[str, Any], news: asyncio.Queue[TextNews]) -> ServedText:
        """A new text, which is told to `news`.  Raises Overloaded or NotServing."""
        if self._closed:
            raise NotServing(self._closed)
        if len(self._texts) >= self.most:
            raise Overloaded(len(self._texts), _RETRY_AFTER)
        self._numbers += 1
        text = self._texts[self._numbers] = ServedText(prompt, options, news, self._numbers)
        self._fill()
        return text

    def cancel(self, text: ServedText) -> None:
        """Nobody reads it any more.  One that has ended is not there, and that is right."""
        if self._texts.pop(text.number, None) is not None and text.engine is not None:
            self._send(text.engine, EngineMessage("cancel", {"id": text.number}))
            self._fill()

    # ---- what the engines tell

    def opened(self, engine: int = 0) -> None:
        """An engine is ready: what no engine writes begins, or goes on."""
        self._ready.add(engine)
        self._fill()

    def lost(self, engine: int = 0) -> None:
        """An engine is gone."""
        self._ready.discard(engine)
        lost = [text for text in self._texts.values() if text.engine == engine]
        suspects = [text for text in lost if text.is_suspect] or lost
        for text in lost:
            text.engine, text.losses = None, text.losses + 1
        if len(suspects) == 1:
            suspects[0].deaths += 1
            if suspects[0].deaths >= MOST_DEATHS:
                error = RequestFailed("the model's process ended while it wrote this text, twice", False)
                self._end(suspects[0].number, error)
        self._fill()

    def step(self, fields: Mapping[str, Any]) -> None:
        """A token."""
        if (text := self._texts.get(fields["id"])) is None:
            return
        text.written.append(fields["token"])
        if text.goes_on:
            was_suspect, text.losses, text.deaths = text.is_suspect, 0, 0
            if was_suspect:
                self._fill()
        text.news.put_nowait((text, Token(fields["token"], fields["text"], fields["logprob"], fields["reason"])))

    def begun(self, fields: Mapping[str, Any]) -> None:
        """The prompt was read."""
        if (text := self._texts.get(fields["id"])) is not None:
            text.prompt_tokens = fields["prompt_tokens"]

    def ended(self, number: int) -> None:
        self._end(number, None)

    def failed(self, number: int, message: str, fault: bool) -> None:
        self._end(number, RequestFailed(message, fault))

    def close(self, why: str) -> None:
        self._closed = why
        for number in [*self._texts]:
            self._end(number, NotServing(why))

    def _fill(self) -> None:
        """Have engines begin the texts that wait, in their order: the one that is ready and writes the fewest texts."""
        load = Counter(text.engine for text in self._texts.values())
        if self._closed or not load[None]:
            return
        free = self._ready - {text.engine for text in self._texts.values() if text.is_suspect}
        for text in self._texts.values():
            if text.engine is None and free:
                engine = min(free, key=load.__getitem__)
                load[engine] += 1
                self._ask(text, engine)
                free -= {engine} if text.is_suspect else set()

    def _ask(self, text: ServedText, engine: int) -> None:
        text.engine, text.begun_at = engine, len(text.written)
        asked = {"id": text.number, "prompt": text.prompt, "options": dict(text.options), "written": [*text.written]}
        self._send(engine, EngineMessage("text", asked))

    def _end(self, number: int, error: Exception | None) -> None:
        if (text := self._texts.pop(number, None)) is not None:
            text.news.put_nowait((text, error))
            self._fill()
