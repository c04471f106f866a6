"""Requests of the OpenAI API: what is wrong is named, never ignored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runtime.serving.protocols.openai_answers import TextAnswer
from runtime.serving.protocols.openai_requests import FieldRefused, read_wish
from runtime.serving.texts import Texts


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"n": 0}, "n", "`n` must be a whole number from 1 to 16"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "say `stream`, too"),
        (
            {"max_tokens": 2, "max_completion_tokens": -1},
            "max_completion_tokens",
            "`max_completion_tokens` must be a whole",
        ),
        ({"seed": 1 << 64}, "seed", "`seed` is 18446744073709551616"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty", "`repetition_penalty` is too large"),
        ({"logit_bias": {"3": float("inf")}}, "logit_bias", "it must be a token id and a number"),
        ({"logit_bias": {"\u0663": 1}}, "logit_bias", "it must be a token id and a number"),
    ],
)
def test_a_field_that_is_wrong_is_named(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(FieldRefused) as refused:
        read_wish({"prompt": "a", **fields}, chat=False)
    assert (refused.value.param, message in str(refused.value)) == (param, True)


@pytest.mark.parametrize(
    ("fields", "chat", "limit"),
    [
        ({}, False, 16),
        ({}, True, None),
        ({"max_tokens": 9, "max_completion_tokens": 5}, True, 5),
        ({"max_tokens": 40}, False, 40),
    ],
)
def test_the_smaller_limit_counts(fields: dict[str, Any], chat: bool, limit: int | None) -> None:
    asked = {"messages": [{"role": "user", "content": "a"}]} if chat else {"prompt": "a"}
    assert read_wish({**asked, **fields}, chat).options.get("max_new_tokens") == limit


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"tool_calls": [{"id": "1"}]}, "`tool_calls` of a message is not supported"),
        ({"audio": {"id": "1"}, "zoom": 1}, "`audio` of a message is not supported"),
        ({"name": ["poet"]}, "the `name` of a message must be a text, too"),
    ],
)
def test_a_field_of_a_message_is_given_to_the_template_or_named(beside: dict[str, Any], message: str) -> None:
    said = {"role": "tool", "content": "a", "name": "poet", "tool_call_id": "1", "tool_calls": None, "annotations": []}
    [[read]] = read_wish({"messages": [said]}, chat=True).prompts
    assert read == {"role": "tool", "content": "a", "name": "poet", "tool_call_id": "1"}
    with pytest.raises(FieldRefused) as refused:
        read_wish({"messages": [said | beside]}, chat=True)
    assert (refused.value.param, message in str(refused.value)) == ("messages", True)


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({}, "default_seed"),
        ({"seed": 5}, [5]),
        ({"seed": 5, "n": 2}, [5, 6]),
        ({"n": 2}, "seed"),
    ],
)
def test_a_text_is_drawn_where_its_request_or_the_checkpoint_says_so(fields: dict[str, Any], want: Any) -> None:
    """Another engine needs its seed, which alone would be a wish to draw; several copies are one, too."""
    asked: list[dict[str, Any]] = []

    async def ask() -> None:
        texts = Texts(lambda engine, message: asked.append(message.fields["options"]), most=6)
        TextAnswer(read_wish({"prompt": "a", **fields}, chat=False), texts, "model")
        texts.opened()

    asyncio.run(ask())
    if isinstance(want, list):
        assert [options["seed"] for options in asked] == want
    else:
        assert all(want in options and len({"seed", "default_seed"} & options.keys()) == 1 for options in asked)
    assert len(asked) == fields.get("n", 1)


def test_more_texts_than_may_be_in_progress_are_no_overload() -> None:
    async def ask(prompts: list[str]) -> TextAnswer:
        texts = Texts(lambda engine, message: None, most=6)
        return TextAnswer(read_wish({"prompt": prompts, "n": 2}, chat=False), texts, "model")

    asyncio.run(ask(["a"] * 3))
    with pytest.raises(FieldRefused, match="asks for 8 texts, and 6 may be in progress"):
        asyncio.run(ask(["a"] * 4))


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_goes_on_in_another_engine_behind_what_was_handed_on(stream: bool) -> None:
    """It might be another, by rounding, if it began again: its parts would not fit together."""
    asked: list[list[int]] = []

    async def ask() -> list[dict[str, Any]]:
        texts = Texts(lambda engine, message: asked.append(message.fields["written"]), most=6)
        answer = TextAnswer(read_wish({"prompt": "a", "stream": stream}, chat=False), texts, "model")
        for token, reason in enumerate(["", "", "lost", "", "", "lost", "stop"]):
            texts.opened()
            if reason == "lost":
                texts.lost()
            else:
                texts.step({"id": 1, "token": token, "text": f"{token}", "logprob": 0.0, "reason": reason})
        texts.ended(1)
        return [told["choices"][0] for told in await events(answer)] if stream else (await answer.whole())["choices"]

    choices = asyncio.run(ask())
    assert asked == [[], [0, 1], [0, 1, 3, 4]]
    assert "".join(choice["text"] for choice in choices) == "01346"
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]


async def events(answer: TextAnswer) -> list[dict[str, Any]]:
    """What is streamed, without the end of the stream, if it has one."""
    told = [event.removeprefix(b"data: ").strip() async for event in await answer.begun()]
    return [json.loads(event) for event in told if event != b"[DONE]"]


@pytest.mark.parametrize(("fault", "kind"), [(False, "server_error"), (True, "invalid_request_error")])
def test_what_a_text_fails_for_is_the_last_event_of_its_stream(fault: bool, kind: str) -> None:
    async def ask() -> list[dict[str, Any]]:
        texts = Texts(lambda engine, message: None, most=6)
        answer = TextAnswer(read_wish({"prompt": "a", "stream": True}, chat=False), texts, "model")
        texts.opened()
        texts.step({"id": 1, "token": 5, "text": "b", "logprob": 0.0, "reason": ""})
        texts.failed(1, "stage 1 has no memory left", fault)
        return await events(answer)

    _, last = asyncio.run(ask())
    assert last == {"error": {"message": "stage 1 has no memory left", "type": kind, "param": None, "code": None}}
