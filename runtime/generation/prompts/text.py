"""Texts as ids, and back: the tokenizer and the chat template that lie in the artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.errors import InputError
from runtime.generation.prompts.chat_template import compiled_template, rendered_chat
from runtime.generation.prompts.special_tokens import read_special_tokens, tokenizer_config
from runtime.manifest.manifest import TOKENIZER

_LONG = 1 << 16  # characters
_UNFINISHED = "\ufffd"  # what stands for bytes that are no whole character yet
_NEIGHBOURS = 8  # ids before an id that may change how it reads


def ids_of(model: Any, text: str, **options: bool) -> list[int]:
    """The ids of a text, by a tokenizer of the library.

    A long one is a batch, for which the library lets other threads of Python run: it takes seconds.  Raises InputError.
    """
    try:
        encoding = model.encode(text, **options) if len(text) < _LONG else model.encode_batch([text], **options)[0]
    except TypeError:
        raise InputError("a prompt holds a lone surrogate, which is no character") from None
    return encoding.ids


def library_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder with a `tokenizer.json`, for texts of any length, with the tokens that it lists.

    The file may hold the padding and the length to cut to of the last call before it was saved, which transformers
    does not follow either.  Raises InputError where the library is missing, or a file is of another kind.
    """
    path = folder / "tokenizer.json"
    try:
        from tokenizers import Tokenizer as Library
    except ModuleNotFoundError as e:
        raise InputError("texts need the library tokenizers", "pip install 'stagecut[text]'") from e
    try:
        model = Library.from_file(str(path))
    except Exception as e:
        raise InputError(f"{path} cannot be read as a tokenizer: {e}") from e
    model.no_padding()
    model.no_truncation()
    read_special_tokens(folder).add_to(model)
    return model


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of an artifact folder, read at its first use.

    All raise InputError where the artifact has none, or libraries are missing.
    """

    artifact: Path

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, with those that the tokenizer puts around a text."""
        return ids_of(self._model, text)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of a chat up to where the answer begins, by the checkpoint's chat template."""
        model, template = self._model, self._template  # the first says first that there is no tokenizer
        return ids_of(model, rendered_chat(template, list(messages), self._special), add_special_tokens=False)

    def reader(self, ends: Sequence[str] = (), before: Sequence[int] = ()) -> TextReader:
        """A reader that turns the ids of a continuation into text, until one of the texts in `ends`.

        `before`: the ids of the text that it goes on from; without any it is a text of its own.
        """
        return TextReader(self._model, tuple(ends), before)

    def special_ids(self, texts: Sequence[str]) -> frozenset[int]:
        """The ids of those of these texts that are special tokens, which the text of a continuation does not show."""
        return frozenset(self._special_ids[text] for text in texts if text in self._special_ids)

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        added = self._model.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    @cached_property
    def _model(self) -> Any:
        if not (self._folder / "tokenizer.json").is_file():
            raise InputError(
                f"{self.artifact} has no tokenizer, so prompts must be token ids",
                "a checkpoint folder with a tokenizer gives its artifact one",
            )
        return library_tokenizer(self._folder)

    @property
    def _folder(self) -> Path:
        return self.artifact / TOKENIZER

    @cached_property
    def _special(self) -> dict[str, str]:
        """Special tokens by the names that templates use."""
        return read_special_tokens(self._folder).texts

    @cached_property
    def _template(self) -> Any:
        path = self._folder / "chat_template.jinja"
        source = path.read_text() if path.is_file() else tokenizer_config(self._folder).get("chat_template")
        if isinstance(source, list):  # several by name
            source = next((t["template"] for t in source if t.get("name") == "default"), None)
        if not source:
            raise InputError(f"{self.artifact} has no chat template", "give the prompt as one text")
        return compiled_template(source)


class TextReader:
    """The text of ids that come one by one.

    What may yet change is held back: bytes of a character that is not whole, and what may begin one of `ends`.
    """

    def __init__(self, model: Any, ends: tuple[str, ...] = (), before: Sequence[int] = ()) -> None:
        """`before`: ids of the text that goes on, on which the first new one may hang: a space before a word."""
        self._model = model
        self._ends = ends
        self._ids = [*before[-_NEIGHBOURS:]]
        self._from = 0  # ids before this one are not decoded again
        # the text of ids[from:] that was handed out, or held back for `ends`
        self._told = self._model.decode(self._ids, skip_special_tokens=True)
        self._held = ""

    def add(self, token: int, last: bool) -> tuple[str, bool]:
        """The text that a token adds, and whether one of `ends` is reached; with the `last` all that was held back."""
        self._ids.append(token)
        text = self._model.decode(self._ids[self._from :], skip_special_tokens=True)
        if not last and text.endswith(_UNFINISHED):
            return "", False
        new, self._told = text[len(self._told) :], text
        if len(self._ids) - self._from > 4 * _NEIGHBOURS and not last:
            self._from = len(self._ids) - _NEIGHBOURS
            self._told = self._model.decode(self._ids[self._from :], skip_special_tokens=True)
        return self._until_end(self._held + new, last)

    def end(self) -> str:
        """The text that was held back: an id that is no text ended it."""
        text, self._held = self._held + self._model.decode(self._ids[self._from :])[len(self._told) :], ""
        return text

    def _until_end(self, text: str, last: bool) -> tuple[str, bool]:
        found = [at for end in self._ends if (at := text.find(end)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        kept = 0 if last else max((_overlap(text, end) for end in self._ends), default=0)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept], False


def _overlap(text: str, end: str) -> int:
    """The length of the longest beginning of `end` with which `text` ends."""
    return next((n for n in range(min(len(text), len(end) - 1), 0, -1) if text.endswith(end[:n])), 0)
