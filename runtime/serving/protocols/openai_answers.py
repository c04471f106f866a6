"""Answers of the OpenAI API: the texts of one request, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from runtime.serving.admission import NotServing, RequestFailed
from runtime.serving.protocols.openai_requests import FieldRefused, Wish
from runtime.serving.texts import ServedText, TextNews, Texts, Token


@dataclass
class Choice:
    """One of the texts of an answer."""

    index: int
    text: ServedText
    tokens: list[Token] = field(default_factory=list)
    length: int = 0  # characters of all tokens


@dataclass(frozen=True)
class TextPiece:
    """A token of an answer of one text, for servers with forms of their own."""

    text: str
    token: int
    reason: str  # why the text ends with it, as the API says it; empty while it goes on


class TextAnswer:
    """The texts of one request, from their beginning on."""

    def __init__(self, wish: Wish, texts: Texts, model: str) -> None:
        """Raises FieldRefused, Overloaded or NotServing."""
        count = len(wish.prompts) * wish.copies
        if count > texts.most:
            message = f"the request asks for {count} texts, and {texts.most} may be in progress at once"
            raise FieldRefused(message, "n" if wish.chat else "prompt")
        self._wish = wish
        self._texts = texts
        self._news: asyncio.Queue[TextNews] = asyncio.Queue()
        prefix = "chatcmpl" if wish.chat else "cmpl"
        self._head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._choices: dict[ServedText, Choice] = {}
        try:
            for prompt in wish.prompts:
                for copy in range(wish.copies):
                    text = texts.begin(prompt, {**wish.options, **wish.seed(copy)}, self._news)
                    self._choices[text] = Choice(len(self._choices), text)
        except Exception:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Nobody reads it any more."""
        for text in self._choices:
            self._texts.cancel(text)

    async def whole(self) -> dict[str, Any]:
        """The answer, once all texts have ended.  Raises RequestFailed or NotServing."""
        kind = "chat.completion" if self._wish.chat else "text_completion"
        async for _ in self._tokens():
            pass
        return {**self._head, "object": kind, "choices": [*map(self._ended, self._choices.values())], **self._usage()}

    async def pieces(self) -> AsyncGenerator[TextPiece, None]:
        """The tokens of the only text as they come.  Raises RequestFailed or NotServing."""
        async for _, token in self._tokens():
            yield TextPiece(token.text, token.token, token.reason)

    async def begun(self) -> AsyncIterator[bytes]:
        """The answer as events, of which the first is there.  Raises RequestFailed or NotServing before that.

        Behind it an error is the last event.
        """
        events = self._events()
        first = await anext(events)

        async def all_of_them() -> AsyncIterator[bytes]:
            yield first
            try:
                async for event in events:
                    yield event
            except (RequestFailed, NotServing) as e:
                kind = "invalid_request_error" if isinstance(e, RequestFailed) and e.fault else "server_error"
                yield _data({"error": {"message": str(e), "type": kind, "param": None, "code": None}})

        return all_of_them()

    async def _events(self) -> AsyncIterator[bytes]:
        async for choice, token in self._tokens():
            first = {"role": "assistant"} if self._wish.chat and len(choice.tokens) == 1 else {}
            yield self._event(choice, token, first)
        if self._wish.usage:
            yield _data({**self._head, "object": self._chunk, "choices": [], **self._usage()})
        yield b"data: [DONE]\n\n"

    async def _tokens(self) -> AsyncIterator[tuple[Choice, Token]]:
        """The tokens of all texts as they come; whatever ends this ends the texts."""
        left = len(self._choices)
        try:
            while left:
                match await self._news.get():
                    case (text, Token() as token):
                        choice = self._choices[text]
                        choice.tokens.append(token)
                        choice.length += len(token.text)
                        yield choice, token
                    case (_, None):
                        left -= 1
                    case (_, Exception() as error):
                        raise error
        finally:
            self.cancel()

    # ---- what is said of a text

    @property
    def _chunk(self) -> str:
        return "chat.completion.chunk" if self._wish.chat else "text_completion"

    def _event(self, choice: Choice, token: Token, first: dict[str, str]) -> bytes:
        logprobs = self._logprobs([token], choice.length - len(token.text))
        said = self._said(choice, [token], "delta", first)
        entry = {"index": choice.index, **said, "logprobs": logprobs, "finish_reason": token.reason or None}
        return _data({**self._head, "object": self._chunk, "choices": [entry]})

    def _ended(self, choice: Choice) -> dict[str, Any]:
        said = self._said(choice, choice.tokens, "message", {"role": "assistant"})
        logprobs = self._logprobs(choice.tokens, 0)
        return {"index": choice.index, **said, "logprobs": logprobs, "finish_reason": choice.tokens[-1].reason}

    def _said(self, choice: Choice, tokens: list[Token], key: str, first: dict[str, str]) -> dict[str, Any]:
        """The text of some tokens; of a chat as a `message` or a `delta` that opens with `first`."""
        text = "".join(token.text for token in tokens)
        if self._wish.chat:
            return {key: {**first, "content": text}}
        if isinstance(choice.text.prompt, list):  # of ids, which are continued by ids
            return {"text": text, "token_ids": [token.token for token in tokens]}
        return {"text": text}

    def _logprobs(self, tokens: list[Token], offset: int) -> dict[str, Any] | None:
        if not self._wish.logprobs:
            return None
        if self._wish.chat:
            told = [
                {"token": t.text, "logprob": t.logprob, "bytes": [*t.text.encode()], "top_logprobs": []} for t in tokens
            ]
            return {"content": told, "refusal": None}
        offsets = [*accumulate((len(t.text) for t in tokens[:-1]), initial=offset)]
        said = {"tokens": [t.text for t in tokens], "token_logprobs": [t.logprob for t in tokens]}
        return {**said, "top_logprobs": None, "text_offset": offsets}

    def _usage(self) -> dict[str, Any]:
        choices = self._choices.values()
        prompt = sum(choice.text.prompt_tokens for choice in [*choices][:: self._wish.copies])
        written = sum(len(choice.tokens) for choice in choices)
        return {"usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}}


def _data(table: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(table, separators=(",", ":")).encode() + b"\n\n"
