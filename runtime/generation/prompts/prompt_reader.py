"""Prompts: ids, texts and chats, as rows of ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from runtime.errors import InputError, demand
from runtime.generation.prompts.media import MediaInputs, TextMedia
from runtime.generation.prompts.text import Tokenizer
from runtime.generation.scheduling.sequences import TextSource
from runtime.manifest.manifest import Generation, ProgramEntry
from runtime.options import is_whole_number


@dataclass(frozen=True)
class Prompt:
    """A prompt as ids, and whether it was a text; with an encoder the ids are those that any text begins with."""

    ids: tuple[int, ...]
    text: bool = False
    source: TextSource | None = None
    media: TextMedia | None = None
    padding: int = 0  # of its row of ids, which counts for `max_length` and `min_length`, as transformers has it
    goes_on: bool = False  # a text whose continuation is written behind it, not an answer to it


@dataclass(frozen=True)
class PromptReader:
    """Reads the inputs of a caller as prompts of an artifact.  Raises InputError."""

    generation: Generation
    tokenizer: Tokenizer
    media: MediaInputs = MediaInputs()

    def read(
        self, given: Any, mask: torch.Tensor | None, beside: Mapping[str, torch.Tensor], pad: int | None = None
    ) -> list[Prompt]:
        """The prompts of a call: a tensor with its padding, one prompt or several; `beside` them media of all.

        `pad`: the id that is padding where there is no mask; None if none is.
        """
        several = are_several(given)
        demand(mask is None or isinstance(mask, torch.Tensor), "attention_mask", mask, "a tensor of the ids' shape")
        if isinstance(given, torch.Tensor):
            given = given if several else given[None]
            mask = given != pad if mask is None and pad is not None and given.dim() == 2 else mask
            prompts = self.rows(given, mask)
            demand(bool(prompts), "the batch of prompts", list(given.shape), "of at least one")
        else:
            mask, prompts = None, [self.one(prompt) for prompt in (given if several else [given])]
        media = self.media.of_rows(beside, [prompt.ids for prompt in prompts], mask)
        return [replace(prompt, media=its) for prompt, its in zip(prompts, media, strict=True)] if media else prompts

    def rows(self, given: torch.Tensor, mask: torch.Tensor | None) -> list[Prompt]:
        """The rows of ids [batch, seq], without the padding that `mask` [batch, seq] marks by 0.

        Or what an encoder takes otherwise, such as a sound: [batch, …].
        """
        if self.generation.source and given.is_floating_point():
            return [Prompt(self.generation.begin, source=TextSource(row, self.generation.source)) for row in given]
        if given.dim() != 2 or given.is_floating_point() or given.dtype == torch.bool:
            shape = list(given.shape)
            raise InputError(f"the ids are {given.dtype} {shape}; they must be whole numbers, [batch, length]")
        mask = torch.ones_like(given) if mask is None else mask
        if mask.shape != given.shape:
            raise InputError(f"attention_mask is {list(mask.shape)}; it must be of the ids' shape, {list(given.shape)}")
        rows = zip(given.tolist(), mask.to(torch.bool).tolist(), strict=True)
        prompts = [self.ids([token for token, counts in zip(*row, strict=True) if counts]) for row in rows]
        length = 0 if self.generation.source else given.shape[1]
        return [replace(prompt, padding=max(length - len(prompt.ids), 0)) for prompt in prompts]

    def one(self, given: Any) -> Prompt:
        """A text, a chat (messages with a role and a content) or a list of ids."""
        match given:
            case str():
                prompt = self.ids(self.tokenizer.encode(given), text=True)
                return replace(prompt, goes_on=not self.generation.source)
            case torch.Tensor() if given.dim() == 1:
                return self.rows(given[None], torch.ones_like(given[None]))[0]
            case [{"role": _, "content": _}, *_]:
                return self.ids(self.tokenizer.encode_chat(given), text=True)
            case [int(), *_] | []:
                return self.ids(given)
        raise InputError(f"a prompt is a text, a list of ids or a chat; this one is of type {type(given).__name__}")

    def shortest(self, program: ProgramEntry) -> Prompt:
        """A prompt of one id, or of zeros where the encoder of a first step takes something else.

        `program`: that of first steps, whose example has the sizes of these zeros.
        """
        source = next((t for t in program.inputs if t.name == "source"), None)
        if source is None or not (dtype := getattr(torch, source.dtype)).is_floating_point:
            return self.ids([0])
        sizes = (program.symbols[n].example if n in program.symbols else int(n) for n in source.shape[1:])
        return self.rows(torch.zeros(1, *sizes, dtype=dtype), None)[0]

    def ids(self, ids: Sequence[Any], *, text: bool = False) -> Prompt:
        if not ids:
            raise InputError("a prompt is empty; it needs at least one token")
        for token in ids:
            if not is_whole_number(token):
                raise InputError(f"{token!r} in a prompt is no token id")
            if not 0 <= token < self.generation.vocabulary:
                raise InputError(
                    f"the token id {token} is outside of the vocabulary, 0 to {self.generation.vocabulary - 1}"
                )
        if not self.generation.source:
            return Prompt(tuple(ids), text)
        if len(ids) > self.generation.source:
            raise InputError(
                f"the source has {len(ids)} tokens, and this artifact takes at most {self.generation.source}",
                "compile with a larger --max-length",
            )
        return Prompt(self.generation.begin, text, TextSource(torch.tensor(ids), len(ids)))


def are_several(given: Any) -> bool:
    """Whether prompts are given, not one: [batch, seq] of ids, or a list of texts, of chats or of lists of ids."""
    match given:
        case torch.Tensor():
            return given.dim() != 1
        case [str() | [*_] | torch.Tensor(), *_]:
            return True
    return False
