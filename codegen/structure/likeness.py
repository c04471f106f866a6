"""Stages that differ in the numbers of their layers alone: one reads as another, line for line."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from codegen.structure.program import Update, operands
from codegen.structure.regions import Action
from codegen.structure.reroll import Repeats
from ir.graph import Call, Param, State, Value


@dataclass
class Unnumbered:
    """Paths without the numbers of layers: of each its distance from the first in its list, and its digits."""

    known: dict[str, Hashable] = field(default_factory=dict)
    _first: dict[Hashable, int] = field(default_factory=dict)

    def __call__(self, path: str) -> Hashable:
        if path not in self.known:
            parts: tuple[Hashable, ...] = ()
            for part in path.split("."):
                parts = (*parts, self._distance(parts, part) if part.isdecimal() else part)
            self.known[path] = parts
        return self.known[path]

    def _distance(self, of: Hashable, number: str) -> Hashable:
        """A list that does not begin at 0 is written in another way."""
        return int(number) - self._first.setdefault(of, int(number)), len(number), int(number) == 0


@dataclass(frozen=True)
class Likeness:
    """The facts that decide how a stage reads, but for the numbers of its layers: equal for stages that read alike.

    `paths` are the modules that the stage runs, by their paths without these numbers.
    """

    key: Hashable
    paths: Mapping[Hashable, str]

    @classmethod
    def of(cls, repeats: Repeats, parts: Mapping[str, str], *others: Hashable) -> Likeness:
        """The likeness of a stage with its partial modules, and whatever `others` its lines depend on."""
        path, place, graph = Unnumbered(), dict[Value, int](), repeats.graph
        regions = [(path(r.path), len(r.actions), graph.modules.get(r.path, "")) for r in repeats.root.inner]
        paths = {name: full for full, name in path.known.items()}
        key = (
            tuple(regions),
            tuple(_borders(graph.inputs, place)),
            tuple((path(fqn), *_stored(value), _at(value, place)) for value, fqn in repeats.fqns.items()),
            repeats.forms.skeletons,
            tuple(_row(action, repeats, path, place) for action in repeats.root.actions),
            tuple(_borders(graph.outputs, place)),
            tuple((path(module), part) for module, part in parts.items()),
            *others,
        )
        return cls(key, paths)


def without_digits(name: str) -> str:
    """A name in which each digit is 0, so that equal ones are equally long."""
    return re.sub(r"\d", "0", name)


def _at(value: Value, place: dict[Value, int]) -> int:
    return place.setdefault(value, len(place))


def _borders(values: Iterable[Value], place: dict[Value, int]) -> Iterator[Hashable]:
    for value in values:
        yield without_digits(value.name), value.type, _at(value, place)


def _stored(value: Value) -> tuple[Any, ...]:
    match value:
        case Param():
            return type(value), value.type, value.buffer, value.frozen
        case State():
            return type(value), value.type, value.rows
        case _:
            return type(value), value.type


def _row(action: Action, repeats: Repeats, path: Unnumbered, place: dict[Value, int]) -> Hashable:
    read = tuple(_at(value, place) for value in operands(action))
    if isinstance(action, Update):
        return read, _at(action.state, place)
    return read, repeats.forms.of_action(action), *_origin(action, path), *map(_made, action.results)


def _origin(call: Call, path: Unnumbered) -> Iterator[Hashable]:
    yield path(call.where.module)
    for frame in call.where.frames:
        yield path(frame.module), frame.file, frame.line, frame.parameters, frame.copies


def _made(value: Value) -> Hashable:
    return value.type, value.variables
