"""Texts in progress: what the engine writes goes to who asked, and a text that an engine took with it begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.serving.admission import MOST_DEATHS, NotServing, Overloaded, RequestFailed
from runtime.serving.messages import EngineMessage

_RETRY_AFTER = 5  # seconds


@dataclass(frozen=True)
class Token:
    """A token of a text: what it adds, its log probability, and whether it is the last one."""

    token: int
    text: str
    logprob: float
    done: bool


@dataclass(eq=False)
class ServedText:
    """A text in progress.  `options` hold a seed: begun again, it is the same."""

    prompt: Any
    options: Mapping[str, Any]
    news: asyncio.Queue[TextNews]  # its tokens, then None or the error that ended it
    number: int
    prompt_tokens: int = 0
    seen: int = 0  # tokens of the present engine
    told: int = 0  # tokens that were handed on
    deaths: int = 0


TextNews = tuple[ServedText, Token | Exception | None]


class Texts:
    """The texts of one engine, which shares its batches among them."""

    def __init__(self, send: Callable[[EngineMessage], None], most: int) -> None:
        """`most`: texts that may be in progress."""
        self._send = send
        self._most = most
        self._open = False
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
        if len(self._texts) >= self._most:
            raise Overloaded(len(self._texts), _RETRY_AFTER)
        self._numbers += 1
        text = self._texts[self._numbers] = ServedText(prompt, options, news, self._numbers)
        if self._open:
            self._ask(text)
        return text

    def cancel(self, text: ServedText) -> None:
        """Nobody reads it any more.  One that has ended is not there, and that is right."""
        if self._texts.pop(text.number, None) is not None and self._open:
            self._send(EngineMessage("cancel", {"id": text.number}))

    # ---- what the engine tells

    def opened(self) -> None:
        """The engine is ready: all that is in progress begins, or begins again."""
        self._open = True
        for text in self._texts.values():
            text.seen = 0
            self._ask(text)

    def lost(self) -> None:
        """The engine is gone."""
        alone, self._open = len(self._texts) == 1, False
        for number, text in [*self._texts.items()]:
            text.deaths += alone
            if text.deaths >= MOST_DEATHS:
                self._end(number, RequestFailed("the model's process ended while it wrote this text, twice", False))

    def step(self, fields: Mapping[str, Any]) -> None:
        """A token.  Those that were handed on before the engine died are not handed on again."""
        if (text := self._texts.get(fields["id"])) is None:
            return
        text.seen += 1
        if text.seen > text.told:
            text.told += 1
            token = Token(fields["token"], fields["text"], fields["logprob"], fields["done"])
            text.news.put_nowait((text, token))

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

    def _ask(self, text: ServedText) -> None:
        self._send(EngineMessage("text", {"id": text.number, "prompt": text.prompt, "options": dict(text.options)}))

    def _end(self, number: int, error: Exception | None) -> None:
        if (text := self._texts.pop(number, None)) is not None:
            text.news.put_nowait((text, error))
