"""Embeddings of the OpenAI API: requests and answers."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import InputError
from runtime.serving.protocols.openai_requests import FieldRefused, read_prompts

_MOST = 2048  # texts of a request: what the API says
_MEANS_NOTHING = ("model", "user")


@dataclass(frozen=True)
class EmbeddingWish:
    """A request: texts or lists of token ids, and the form of the answer."""

    prompts: tuple[Any, ...]
    packed: bool  # as base64 of float32, in place of numbers


def read_embedding_wish(table: Any) -> EmbeddingWish:
    """The wish in a request.  Raises FieldRefused that names the field, InputError for what has none."""
    if not isinstance(table, dict):
        raise InputError("the request must be an object")
    left = {name: value for name, value in table.items() if name not in _MEANS_NOTHING and value is not None}
    prompts = read_prompts(left.pop("input", None), "input")
    if len(prompts) > _MOST:
        raise FieldRefused(f"`input` has {len(prompts)} texts, and {_MOST} are allowed", "input")
    form = left.pop("encoding_format", "float")
    if form not in ("float", "base64"):
        raise FieldRefused("`encoding_format` must be float or base64", "encoding_format")
    if left:
        raise FieldRefused(f"`{next(iter(left))}` is not supported", next(iter(left)))
    return EmbeddingWish(prompts, form == "base64")


def embedding_answer(
    wish: EmbeddingWish, model: str, vectors: Sequence[Sequence[float]], tokens: int
) -> dict[str, Any]:
    """The answer to a request."""
    shown = [_packed(vector) if wish.packed else vector for vector in vectors]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(shown)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
