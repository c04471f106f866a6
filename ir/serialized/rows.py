"""A table of objects as JSON: each object is a row, and names those that it holds by the numbers of their rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

import sympy
import torch
from torch.utils._pytree import TreeSpec

from ir.errors import SourceError, in_one_line
from ir.graph import Graph, Program
from ir.location import Frame, Where
from ir.objects.named_classes import NamedClass, spec_again, spec_parts
from ir.serialized.expressions import applied, atom_json, atom_of, function_name, is_atom
from ir.serialized.leaves import Unspeakable, is_plain_class, leaf_json, leaf_of
from ir.sizes import CallSizes, DescribedValues, RowProductSum, TensorType, ValueCount

_ROW = "@"  # the key of a reference: the number of a row
_ATOM, _FUNCTION, _TREE, _PARAMETER = "atom", "function", "tree", "parameter"


class RowWriter:
    """The table of what is written, and the tensors in it, which are told apart by their numbers.

    `classes` are the dataclasses that it may have, by their names.
    """

    def __init__(self, classes: Mapping[str, type]) -> None:
        self.classes = classes
        self.rows: list[list[Any]] = []
        self.tensors: list[torch.Tensor] = []
        self.known: dict[Any, tuple[int, Any]] = {}  # the objects are kept alive, so that no id is used again

    def write(self, thing: Any) -> Any:
        """A thing as JSON that may refer to rows.  Raises Unspeakable."""
        match thing:
            case None | bool() | str():
                return thing
            case int() if type(thing) is int:
                return thing
            case float() if thing == thing and abs(thing) != float("inf"):
                return thing
            case torch.Tensor():
                self.tensors.append(thing)
                return {"tensor": len(self.tensors) - 1}
            case list():
                return {"list": [self.write(item) for item in thing]}
            case Mapping():
                return {"dict": [[self.write(k), self.write(v)] for k, v in thing.items()]}
            case set() | frozenset():
                return {"set": [self.write(item) for item in sorted(thing)]}
            case tuple() if self.classes.get(type(thing).__name__) is not type(thing):
                return [self.write(item) for item in thing]
        return self._reference(thing)

    def _reference(self, thing: Any) -> dict[str, Any]:
        """The row of an object, or else a leaf."""
        key = _identity(thing)
        if key not in self.known:
            row = self._row(thing)
            if row is None:
                return leaf_json(thing)
            self.rows.append(row)
            self.known[key] = len(self.rows) - 1, thing
        return {_ROW: self.known[key][0]}

    def _row(self, thing: Any) -> list[Any] | None:
        match thing:
            case sympy.Basic() if is_atom(thing):
                return [_ATOM, *atom_json(thing)]
            case sympy.Basic():
                return [_FUNCTION, function_name(thing), *map(self.write, thing.args)]
            case TreeSpec():
                return [_TREE, *map(self.write, spec_parts(thing))]
            case inspect.Parameter():
                return [_PARAMETER, thing.name, thing.kind.name, self._default(thing.default)]
            case type() if not is_plain_class(thing):
                return self._row(NamedClass.of(thing))
        if self.classes.get(type(thing).__name__) is not type(thing):
            return None
        return [type(thing).__name__, {name: self.write(value) for name, value in _told(thing)}]

    def _default(self, value: Any) -> Any:
        """The default of a parameter; in place of one that no file can have, one that equals no argument of a call."""
        try:
            return self.write(value)
        except Unspeakable:
            return {"dict": [["default", repr(type(value))]]}


def _identity(thing: Any) -> Any:
    """The key of an object: equal places, types and expressions are one, all else is told apart."""
    match thing:
        case TensorType():
            return thing, tuple(map(type, thing.shape))
        case sympy.Basic() | Where() | Frame() | type():
            return type(thing), thing
    return id(thing)


def _told(thing: Any) -> Sequence[tuple[str, Any]]:
    """The fields of an object that are not as by default."""
    if isinstance(thing, tuple):
        return list(zip(thing._fields, thing, strict=True))  # type: ignore[attr-defined]
    named = [(f, getattr(thing, f.name)) for f in fields(thing) if f.init]
    return [(f.name, value) for f, value in named if not _is_default(f, value)]


def _is_default(field: Field[Any], value: Any) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return value is default or (type(value) is type(default) and bool(value == default))


def _check_sizes(made: Any) -> None:
    """Raise TypeError for sizes that are neither numbers nor expressions, as sympy runs text as code."""
    match made:
        case TensorType(shape=sizes) | CallSizes(sizes=sizes):
            held = sizes.values() if isinstance(sizes, Mapping) else sizes
        case ValueCount(count=size) | RowProductSum(count=size):
            held = [size]
        case DescribedValues(most=sizes):
            held = sizes
        case Graph() | Program():
            ranges = (end for ends in made.ranges.values() for end in ends if end is not None)
            held = [*made.guards, *ranges, *(made.hints.values() if isinstance(made, Graph) else ())]
        case _:
            return
    for size in held:
        if not isinstance(size, (int, sympy.Basic)):
            raise TypeError(f"a size is {size!r}, neither a number nor an expression")


class RowReader:
    """Reads a table of `RowWriter`.  `tensor` gives the tensor of a number."""

    def __init__(self, classes: Mapping[str, type], tensor: Callable[[int], torch.Tensor]) -> None:
        self.classes = classes
        self.tensor = tensor
        self.things: list[Any] = []

    def read(self, rows: Sequence[Sequence[Any]]) -> Any:
        """The object of the last row.  Raises SourceError for what this process or this version does not know."""
        try:
            for kind, *parts in rows:
                self.things.append(self._thing(kind, parts))
            return self.things[-1]
        except (LookupError, TypeError, ValueError, AttributeError) as e:
            raise SourceError(f"its graph has what is not known here, or is damaged ({in_one_line(e)})") from e

    def _thing(self, kind: str, parts: Sequence[Any]) -> Any:
        match kind:
            case "atom":
                return atom_of(*parts)
            case "function":
                return applied(parts[0], list(map(self._value, parts[1:])))
            case "tree":
                return spec_again(*map(self._value, parts))
            case "parameter":
                name, how, default = parts
                return inspect.Parameter(name, getattr(inspect.Parameter, how), default=self._value(default))
        made = self.classes[kind](**{name: self._value(value) for name, value in parts[0].items()})
        _check_sizes(made)
        return made.found() if isinstance(made, NamedClass) else made

    def _value(self, written: Any) -> Any:
        if isinstance(written, list):
            return tuple(map(self._value, written))
        if not isinstance(written, dict):
            return written
        ((kind, value),) = written.items()
        match kind:
            case "@":
                return self.things[value]
            case "tensor":
                return self.tensor(value)
            case "list":
                return list(map(self._value, value))
            case "dict":
                return {self._value(k): self._value(v) for k, v in value}
            case "set":
                return frozenset(map(self._value, value))
        return leaf_of(kind, value)
