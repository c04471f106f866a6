"""Requests of the OpenAI API for texts: completions and chats.

https://platform.openai.com/docs/api-reference.  A field that is not supported is refused by its name, never ignored.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputError

# Fields that say nothing about the answer, and values that ask for what is done anyway.
_MEANS_NOTHING = ("model", "user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier")
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "best_of": (1, None),
    "echo": (False, None),
    "suffix": ("", None),
    "top_logprobs": (0, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "functions": ([], None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "store": (False, None),
    "reasoning_effort": (None,),
}
_NUMBERS: Mapping[str, tuple[float | None, float | None]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "top_k": (0, None),
    "repetition_penalty": (0, None),
    "seed": (-(1 << 63), (1 << 64) - 1),
}
_LIMITS = ("max_tokens", "max_completion_tokens")  # 16 for completions that have none, as the API says
_MOST_CHOICES = 16
_BESIDE_CONTENT = {"name", "tool_call_id", "reasoning_content"}  # of a message, for chat templates that show them


class FieldRefused(InputError):
    """A field of a request that is wrong, or that is not supported."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class NoSuchModel(Exception):
    """A request for a model that is not served."""

    code = "model_not_found"

    def __init__(self, asked: Any, served: str) -> None:
        super().__init__(f"there is no model {asked!r}, only {served!r}")


@dataclass(frozen=True)
class Wish:
    """A request: prompts, options of the generation, and the form of the answer."""

    prompts: tuple[Any, ...]
    options: Mapping[str, Any]
    chat: bool
    copies: int = 1
    stream: bool = False
    usage: bool = False  # also in a stream
    logprobs: bool = False

    def seed(self, copy: int) -> dict[str, int]:
        """The option with the seed of a copy, by which another engine goes on as the first one would have.

        Several copies are a wish to draw, as greedy ones would be alike; one copy without a seed is drawn if it, or the
        checkpoint, says so.
        """
        named = self.options.get("seed")
        own = secrets.randbits(31) if named is None else named + copy
        return {"seed" if self.copies > 1 or named is not None else "default_seed": own}


def read_wish(table: Any, chat: bool) -> Wish:
    """The wish in a request.  Raises FieldRefused that names the field, InputError for what has none."""
    if not isinstance(table, dict):
        raise InputError("the request must be an object")
    left = {name: value for name, value in table.items() if name not in _MEANS_NOTHING}
    for name, fine in _ONLY.items():
        if name in left and left.pop(name) not in fine:
            raise FieldRefused(f"`{name}` is not supported", name)
    prompts = (_messages(left.pop("messages", None)),) if chat else read_prompts(left.pop("prompt", None))
    options = {name: _number(name, left.pop(name), *b) for name, b in _NUMBERS.items() if left.get(name) is not None}
    limits = {name: limit for name in _LIMITS if (limit := left.pop(name, None)) is not None}
    least = min((_whole(name, limit, 1, None) for name, limit in limits.items()), default=None if chat else 16)
    if least is not None:
        options["max_new_tokens"] = least
    if (stop := left.pop("stop", None)) is not None:
        options["stop"] = [stop] if isinstance(stop, str) else _list_of_texts("stop", stop)
    if bias := left.pop("logit_bias", None):
        options["logit_bias"] = [[token, value] for token, value in _biases(bias)]
    copies = 1 if (n := left.pop("n", None)) is None else _whole("n", n, 1, _MOST_CHOICES)
    stream = _truth("stream", left.pop("stream", None))
    told = left.pop("stream_options", None) or {}
    if not isinstance(told, dict) or set(told) - {"include_usage", "include_obfuscation"}:
        raise FieldRefused("of `stream_options`, only `include_usage` is supported", "stream_options")
    if told and not stream:
        raise FieldRefused("`stream_options` are for answers that are streamed; say `stream`, too", "stream_options")
    logprobs = left.pop("logprobs", None)
    if not isinstance(logprobs, bool) and logprobs not in (None, 0):
        raise FieldRefused("`logprobs` of other tokens than the written ones are not supported; ask for 0", "logprobs")
    if left := {name: value for name, value in left.items() if value is not None or name not in _NUMBERS}:
        raise FieldRefused(f"`{next(iter(left))}` is not supported", next(iter(left)))
    wanted = logprobs if isinstance(logprobs, bool) else logprobs == 0
    return Wish(prompts, options, chat, copies, stream, bool(told.get("include_usage")), wanted)


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise FieldRefused("`messages` must be a list of messages", "messages")
    return [_message(message) for message in value]


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise FieldRefused("each of `messages` is an object with a `role` and a `content`", "messages")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise FieldRefused("of the parts of a message, only texts are supported", "messages")
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise FieldRefused("the `content` of a message must be a text", "messages")
    beside = {name: value for name, value in message.items() if name not in ("role", "content") and value}
    if unknown := beside.keys() - _BESIDE_CONTENT:
        raise FieldRefused(f"`{min(unknown)}` of a message is not supported", "messages")
    if others := [name for name, value in beside.items() if not isinstance(value, str)]:
        raise FieldRefused(f"the `{others[0]}` of a message must be a text, too", "messages")
    return {**beside, "role": message["role"], "content": content}


def read_prompts(value: Any, field: str = "prompt") -> tuple[Any, ...]:
    """The texts and lists of ids in a field: one, or a list of them.  Raises FieldRefused."""
    if isinstance(value, str) or _are_ids(value):
        return (value,)
    if isinstance(value, list) and value and all(isinstance(one, str) or _are_ids(one) for one in value):
        return tuple(value)
    raise FieldRefused(f"`{field}` must be a text, a list of token ids, or a list of these", field)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _number(name: str, value: Any, low: float | None, high: float | None) -> Any:
    whole = name in ("top_k", "seed")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise FieldRefused(f"`{name}` must be {'a whole' if whole else 'a'} number", name)
    if abs(value) == math.inf:  # as which Python reads 1e999
        raise FieldRefused(f"`{name}` is too large", name)
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"at least {low}"
        raise FieldRefused(f"`{name}` is {value}; it must be {limits}", name)
    return value


def _whole(name: str, value: Any, low: int, high: int | None) -> int:
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise FieldRefused(f"`{name}` must be a whole number {limits}", name)
    return value


def _list_of_texts(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FieldRefused(f"`{name}` must be a text or a list of texts", name)
    return value


def _biases(value: Any) -> Iterator[tuple[int, float]]:
    """Pairs of a token id and what is added to its logit: JSON has ids as texts."""
    if not isinstance(value, dict):
        raise FieldRefused("`logit_bias` must be an object of token ids and numbers", "logit_bias")
    for token, bias in value.items():
        known = token.isascii() and token.isdecimal() and len(token) < 19
        if not known or isinstance(bias, bool) or not isinstance(bias, (int, float)) or abs(bias) == math.inf:
            raise FieldRefused(
                f"`logit_bias` has {token!r}: {bias!r}; it must be a token id and a number", "logit_bias"
            )
        yield int(token), bias


def _truth(name: str, value: Any) -> bool:
    if value not in (None, True, False):
        raise FieldRefused(f"`{name}` must be true or false", name)
    return bool(value)
