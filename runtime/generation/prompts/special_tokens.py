"""Tokens that stand only in the files beside a `tokenizer.json`, read and added as transformers does."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import InputError

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FIELDS = ("single_word", "lstrip", "rstrip", "normalized")

TokenFields = dict[str, Any]  # those of the library's AddedToken


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that the files beside a `tokenizer.json` list."""

    named: dict[str, TokenFields]  # special ones, by the names that templates use
    extra: list[TokenFields]  # special ones without a name
    numbered: dict[int, TokenFields]  # by the ids that they had where the files were written
    complete: bool  # whether the tokens of `tokenizer.json` are listed, too
    splits: bool  # whether special tokens in a text are read as any text

    @property
    def texts(self) -> dict[str, str]:
        """The texts of the tokens with names."""
        return {name: token["content"] for name, token in self.named.items()}

    def add_to(self, model: Any) -> None:
        """Add those that a tokenizer of the library lacks, or has with other fields.

        The library chooses their ids: that of the text in its vocabulary, or the next.  A named token is special even
        where its fields say otherwise.
        """
        from tokenizers import AddedToken

        own: dict[int, Any] = model.get_added_tokens_decoder()
        numbered = {i: AddedToken(**fields) for i, fields in self.numbered.items()}
        tokens = [token for _, token in sorted((numbered if self.complete else numbered | own).items())]
        known = {token.content for token in (*own.values(), *tokens)}
        lacking = [fields for fields in (*self.named.values(), *self.extra) if fields["content"] not in known]
        tokens += [AddedToken(**fields) for i, fields in enumerate(lacking) if fields not in lacking[:i]]
        names = {*self.texts.values()}
        for token in tokens:
            token.special = token.special or token.content in names
        if {repr(token) for token in tokens} - {repr(token) for token in model.get_added_tokens_decoder().values()}:
            model.add_tokens(tokens)
        model.encode_special_tokens = self.splits


def read_special_tokens(folder: Path) -> SpecialTokens:
    """The tokens that the files of a folder list besides `tokenizer.json`.  Raises InputError.

    Files that transformers wrote since version 4.34 list them all in `tokenizer_config.json`; the others count beside
    older ones alone.
    """
    config = tokenizer_config(folder)
    complete = "added_tokens_decoder" in config
    older = {} if complete else _json(folder / "special_tokens_map.json")
    try:
        named, extra = _named(config, older), _extra(config, older)
        if complete:
            numbered = {int(i): _fields(token, special=False) for i, token in config["added_tokens_decoder"].items()}
        else:
            newer = _extra(config, {**older, "additional_special_tokens": None})  # others count as special too late
            special = {token["content"] for token in newer} | {
                named[name]["content"] for name in named.keys() & _STANDARD
            }
            numbered = {i: _numbered(text, special) for text, i in _json(folder / "added_tokens.json").items()}
    except (AttributeError, TypeError, ValueError) as e:
        raise InputError(f"the tokens that {folder} lists cannot be read: {type(e).__name__}: {e}") from e
    return SpecialTokens(named, extra, numbered, complete, bool(config.get("split_special_tokens")))


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """The content of `tokenizer_config.json`; empty where there is none.  Raises InputError."""
    return _json(folder / "tokenizer_config.json")


def _named(config: Mapping[str, Any], older: Mapping[str, Any]) -> dict[str, TokenFields]:
    """In the order in which they are added: the standard ones, then those of the model."""
    told = {name: token for name, token in {**config, **older}.items() if name.endswith("_token") and _is_token(token)}
    standard = {name: told.pop(name) for name in _STANDARD if name in told}
    texts = {name: token for name, token in config.items() if name in told and isinstance(token, str)}
    first = {name: token for name, token in told.items() if name in older or name not in texts}
    extra = [of for of in (_extra_of(config), _extra_of(older)) if isinstance(of, dict)]
    named = first | texts | {name: token for of in extra for name, token in of.items() if _is_token(token)}
    return {name: _fields(token) for name, token in (standard | named).items()}


def _extra(config: Mapping[str, Any], older: Mapping[str, Any]) -> list[TokenFields]:
    replaced = isinstance(older.get("extra_special_tokens"), dict)
    listed = None if replaced else _extra_of(config)
    known = listed if isinstance(listed, list) else []
    later = older.get("extra_special_tokens") if isinstance(listed, list) else _extra_of(older)
    added = [token for token in later if token not in known] if isinstance(later, list) else []
    return [_fields(token) for token in (*known, *added)]


def _extra_of(settings: Mapping[str, Any]) -> Any:
    """A list of tokens, or a dict of them by name; under the name that version 5 of transformers gave it first."""
    return settings.get("extra_special_tokens", settings.get("additional_special_tokens"))


def _is_token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _fields(token: Any, special: bool = True) -> TokenFields:
    """The fields of a token, which is its text or a dict of some.  `special`: whether it is if it does not say."""
    if not _is_token(token):
        raise ValueError(f"{token!r} is no token")
    given = {"content": token} if isinstance(token, str) else token
    return {"special": special} | {name: given[name] for name in ("content", "special", *_FIELDS) if name in given}


def _numbered(text: str, special: Collection[str]) -> TokenFields:
    return {"content": text, "special": text in special, "normalized": text not in special}


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as e:
        raise InputError(f"{path} cannot be read: {e}") from e
    return table if isinstance(table, dict) else {}
