"""Dataclasses as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from json.encoder import encode_basestring_ascii
from typing import Any, get_args, get_origin, get_type_hints

Decode = Callable[[Any], Any]
LINE = 160  # characters of a line, with its indent


class UnknownKey(TypeError):
    """A key in JSON that its dataclass does not have; the text is the key."""


def from_json(hint: Any, value: Any) -> Any:
    """A value of the type `hint` from JSON: a dataclass, a tuple of any length, a dict, or what JSON has itself.

    Raises KeyError for a missing key, UnknownKey, and TypeError or AttributeError for another type of container.
    """
    return _decoder(hint)(value)


def as_table(value: Any) -> Any:
    """A value with a dict in place of each dataclass in it, as `dataclasses.asdict` but without copies of all else.

    That takes a third of the time for a manifest of tens of thousands of nodes.
    """
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return {key: as_table(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_table(item) for item in value]
    return {name: as_table(getattr(value, name)) for name in _names(type(value))} if is_dataclass(value) else value


@cache
def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def spread_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each item of what is longer than a line, or is the whole value."""
    if not value or not isinstance(value, (dict, list, tuple)):
        return _leaf(value)
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{_leaf(str(key))}: {spread_json(item, inner)}" for key, item in value.items()]
        begin, end = "{}"
    else:
        items = [spread_json(item, inner) for item in value]
        begin, end = "[]"
    if indent and len(indent) + sum(map(len, items)) + 2 * len(items) <= LINE and not any("\n" in i for i in items):
        return f"{begin}{', '.join(items)}{end}"
    apart = f",\n{inner}".join(items)
    return f"{begin}\n{inner}{apart}\n{indent}{end}"


def _leaf(value: Any) -> str:
    """`json.dumps` of what holds nothing, in a fifth of its time for texts and whole numbers."""
    if type(value) is str:
        return encode_basestring_ascii(value)
    return repr(value) if type(value) is int else json.dumps(value)


@cache
def _decoder(hint: Any) -> Decode:
    """The function that makes values of a type: found once, as a manifest has tens of thousands of some."""
    if is_dataclass(hint):
        return _object_decoder(hint)
    match get_origin(hint), get_args(hint):
        case (origin, (of, _)) if origin is tuple:
            item = _decoder(of)
            return tuple if item is _as_it_is else lambda value: tuple([item(part) for part in value])
        case (origin, (_, of)) if origin is dict:
            item = _decoder(of)
            return lambda value: {key: item(part) for key, part in value.items()}
    return _as_it_is


def _object_decoder(cls: Any) -> Decode:
    hints = get_type_hints(cls)
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    decoders = {name: decoder for name, hint in hints.items() if (decoder := _decoder(hint)) is not _as_it_is}

    def decode(value: Any) -> Any:
        for name in required:
            if name not in value:
                raise KeyError(name)
        if unknown := [name for name in value if name not in hints]:
            raise UnknownKey(unknown[0])
        return cls(**{**value, **{name: item(value[name]) for name, item in decoders.items() if name in value}})

    return decode


def _as_it_is(value: Any) -> Any:
    return value
