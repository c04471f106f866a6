"""Options scoped by their pass, as texts: `split-stages{time-limit=20 in-flight=4}`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, get_type_hints

from ir.errors import PipelineError
from passes.pipeline import Pass

_READ = (int, float, bool, str)


def scoped(passes: Sequence[Pass], texts: Sequence[str]) -> tuple[Pass, ...]:
    """The same passes with the options that the texts give them.

    Raises PipelineError for a text that does not read so, an unknown pass, option or value.
    """
    given: dict[str, dict[str, str]] = {}
    for text in texts:
        name, options = _parse(text)
        given.setdefault(name, {}).update(options)
    known = [p.name for p in passes]
    for name in given:
        if name not in known:
            raise PipelineError(f"no pass is named {name!r}; there are {', '.join(known)}")
    return tuple(_with(p, given[p.name]) if p.name in given else p for p in passes)


def _parse(text: str) -> tuple[str, dict[str, str]]:
    match = re.fullmatch(r"\s*([\w-]+)\s*\{(.*)\}\s*", text)
    items = re.split(r"[\s,]+", match[2].strip()) if match else []
    if match is None or not all(re.fullmatch(r"[\w-]+=\S+", item) for item in items):
        raise PipelineError(
            f"{text!r} does not read as PASS{{OPTION=VALUE}}, for example split-stages{{time-limit=20}}"
        )
    return match[1], dict(item.split("=", 1) for item in items)


def _with(p: Any, given: dict[str, str]) -> Pass:
    kinds = dict(_kinds(type(p)))
    values = {}
    for name, text in given.items():
        if name not in kinds:
            has = f"it has {', '.join(kinds)}" if kinds else "it has none"
            raise PipelineError(f"{p.name} has no option {name!r}; {has}")
        values[name.replace("-", "_")] = _value(f"{p.name}{{{name}}}", kinds[name], text)
    return dataclasses.replace(p, **values)


def _kinds(cls: type[Any]) -> Iterator[tuple[str, type]]:
    """The options of a pass as they are spelled, and their types: its fields that a text can hold."""
    types = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = types[field.name]
        if kind in _READ or (isinstance(kind, type) and issubclass(kind, Enum)):
            yield field.name.replace("_", "-"), kind


def _value(place: str, kind: type, text: str) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        choices = list(map(str, (m.value for m in kind))) if issubclass(kind, Enum) else _WHAT[kind]
        wanted = " or ".join(choices)
        raise PipelineError(f"{place} is {text!r}; it must be {wanted}") from None


_WHAT = {int: ["a whole number"], float: ["a number"], bool: ["true", "false"]}
