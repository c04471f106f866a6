"""Dataclasses as JSON, and back."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints


def from_json(hint: Any, value: Any) -> Any:
    """A value of the type `hint` from JSON: a dataclass, a tuple of any length, a dict, or what JSON has itself.

    Raises KeyError for a missing key, TypeError or AttributeError for an unknown key or another type of container.
    """
    if is_dataclass(hint):
        return _decode_object(hint, value)
    match get_origin(hint), get_args(hint):
        case (origin, (of, _)) if origin is tuple:
            return tuple([from_json(of, item) for item in value])
        case (origin, (_, of)) if origin is dict:
            return {key: from_json(of, item) for key, item in value.items()}
    return value


def spread_json(value: Any, indent: str = "") -> str:
    """JSON with a line for each item of what is longer than a line."""
    short = json.dumps(value)
    if not value or not isinstance(value, (dict, list, tuple)) or (indent and len(indent) + len(short) <= 160):
        return short
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(str(key))}: {spread_json(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + spread_json(item, inner) for item in value) + f"\n{indent}]"


def _decode_object(cls: Any, value: Any) -> Any:
    known, required = _keys(cls)
    for name in required:
        if name not in value:
            raise KeyError(name)
    return cls(**{name: from_json(known[name], item) if name in known else item for name, item in value.items()})


@cache
def _keys(cls: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The type of each field of a dataclass, and the fields that have no default."""
    return get_type_hints(cls), tuple(field.name for field in fields(cls) if not _has_default(field))


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING
