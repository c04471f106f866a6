"""Sizes as options: workloads, as `batch=1,seq=4096:0.7;batch=32,seq=512:0.3`, and shapes of example inputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from ir.errors import CompileError
from ir.text.call_sizes import as_workload


@dataclass(frozen=True)
class WantedCall:
    """Sizes of a call by name, and how often such calls come, relative to the others."""

    sizes: Mapping[str, int]
    weight: float = 1.0


def read_workload(value: Any) -> tuple[WantedCall, ...]:
    """The calls in a text; in Python also one mapping from names to sizes, or pairs of such a mapping and a weight.

    Raises ValueError or TypeError for anything else, and CompileError for a weight that is not above 0.
    """
    calls = tuple(_calls(value))
    if not calls:
        raise ValueError
    for call in calls:
        if not 0 < call.weight < inf:
            given = as_workload(call.sizes)
            raise CompileError(f"the workload gives {given} the weight {call.weight:g}; weights are numbers above 0")
    return calls


def _calls(value: Any) -> Iterable[WantedCall]:
    match value:
        case str():
            return map(_parsed, value.split(";"))
        case Mapping():
            return [_checked(value)]
    return [item if isinstance(item, WantedCall) else _checked(*item) for item in value]


def _parsed(text: str) -> WantedCall:
    sizes, colon, weight = text.partition(":")
    pairs = [re.fullmatch(r"\s*(\w+)\s*=\s*(\d+)\s*", pair) for pair in sizes.split(",")]
    named = {pair[1]: int(pair[2]) for pair in pairs if pair}
    if len(named) < len(pairs):  # one does not read so, or a name comes twice
        raise ValueError
    return _checked(named, float(weight) if colon else 1.0)


def _checked(sizes: Any, weight: float = 1.0) -> WantedCall:
    if not isinstance(sizes, Mapping) or not sizes:
        raise TypeError
    if not all(isinstance(name, str) and type(size) is int for name, size in sizes.items()):
        raise TypeError
    return WantedCall(dict(sizes), float(weight))


def read_shapes(value: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Shapes of inputs by name, from texts such as `input_ids=1x4096`; in Python also from a mapping.

    Raises ValueError or TypeError for anything else, and for an input that is named twice.
    """
    given = value.items() if isinstance(value, Mapping) else _named_shapes([value] if isinstance(value, str) else value)
    shapes = tuple((str(name), tuple(shape)) for name, shape in given)
    sizes = [size for _, shape in shapes for size in shape]
    if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise ValueError
    if len({name for name, _ in shapes}) < len(shapes):
        raise ValueError
    return shapes


def _named_shapes(items: Iterable[Any]) -> Iterator[tuple[str, Sequence[int]]]:
    """The pairs among the items, and those in their texts."""
    for item in items:
        if isinstance(item, str):
            yield from map(_parsed_shape, item.split(","))
        else:
            yield item


def _parsed_shape(text: str) -> tuple[str, Sequence[int]]:
    match = re.fullmatch(r"\s*([\w.]+)\s*=\s*(\d+(?:x\d+)*)\s*", text)
    if match is None:
        raise ValueError
    return match[1], [int(size) for size in match[2].split("x")]
