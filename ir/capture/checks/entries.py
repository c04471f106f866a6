"""Arguments that are dicts, with their entries in another order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any


def with_turned_entries(arguments: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each argument with a dict of several entries by its name, and all arguments with the entries of that reversed."""
    for name, value in arguments.items():
        if _has_several(value):
            yield name, {**arguments, name: _turned(value)}


def _has_several(value: Any) -> bool:
    match value:
        case dict() if type(value) in (dict, OrderedDict):
            return len(value) > 1 or any(map(_has_several, value.values()))
        case list() | tuple():
            return any(map(_has_several, value))
    return False


def _turned(value: Any) -> Any:
    match value:
        case dict() if type(value) in (dict, OrderedDict):
            return type(value)((key, _turned(value[key])) for key in reversed(value))
        case list() | tuple() if type(value) in (list, tuple):
            return type(value)(map(_turned, value))
    return value
