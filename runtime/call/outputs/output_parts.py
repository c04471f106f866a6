"""Parts of outputs, as callers name them: `logits`, or `logits[:, -1]` as Python would index it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import InputError

TensorBox = tuple[tuple[int, int, int], ...]  # start, stop and step along each dimension
_NUMBER = r"\s*(-?[0-9]{1,18})?\s*"
_ENTRY = re.compile(rf"{_NUMBER}(?:(:){_NUMBER}(?::{_NUMBER})?)?")
_LONGEST = 256  # characters of a part: its time to read grows with their square
_SPARE = 16  # parts that a call may ask for, beside one of each output


@dataclass(frozen=True)
class OutputPart:
    """An output of the model, or a part of it.  A dimension with a number for its index is dropped."""

    text: str  # as the caller wrote it
    output: str
    index: tuple[int | slice, ...]  # of every dimension

    @classmethod
    def parse(cls, text: str, shapes: Mapping[str, Sequence[int | str]]) -> OutputPart:
        """The part that a text names.  `shapes`: of the outputs, as the manifest has them.  Raises InputError."""
        if len(text) > _LONGEST and text not in shapes:
            raise InputError(
                f"the name of an output, with its index, has {len(text)} characters; {_LONGEST} are allowed"
            )
        name, bracket, rest = (text, "", "") if text in shapes else text.partition("[")
        if name not in shapes:
            raise InputError(f"there is no output `{name}`; the model returns {', '.join(shapes)}")
        if bracket and not rest.endswith("]"):
            raise InputError(f"output `{text}`: the index does not end with ]")
        shape = shapes[name]
        part = cls(text, name, _index(text, rest[:-1], len(shape)))
        for d, (entry, size) in enumerate(zip(part.index, shape, strict=True)):
            if isinstance(entry, int) and isinstance(size, int):
                part._require_inside(d, entry, size)
        return part

    def box(self, shape: Sequence[int]) -> TensorBox:
        """The elements of an output of this shape.  Raises InputError where it has no such index."""
        return tuple(self._range(d, entry, size) for d, (entry, size) in enumerate(zip(self.index, shape, strict=True)))

    def shape(self, box: TensorBox) -> tuple[int, ...]:
        """The shape of the part: that of its box without the dimensions that are dropped."""
        kept = (r for r, entry in zip(box, self.index, strict=True) if isinstance(entry, slice))
        return tuple(len(range(*r)) for r in kept)

    def dimension(self, dim: int) -> int | None:
        """The dimension of the part that a dimension of the output becomes; None if the part is not all of it."""
        if self.index[dim] != slice(None):
            return None
        return sum(isinstance(entry, slice) for entry in self.index[:dim])

    def _range(self, dim: int, entry: int | slice, size: int) -> tuple[int, int, int]:
        if isinstance(entry, slice):
            start, stop, step = entry.indices(size)
            return start, max(start, stop), step
        self._require_inside(dim, entry, size)
        start = entry % size
        return start, start + 1, 1

    def _require_inside(self, dim: int, entry: int, size: int) -> None:
        if not -size <= entry < size:
            raise InputError(f"output `{self.text}`: dimension {dim} has {size} elements, so {entry} is none of them")


def parse_parts(texts: Collection[str], shapes: Mapping[str, Sequence[int | str]]) -> tuple[OutputPart, ...]:
    """The parts that a call asks for, each once.  Raises InputError, also where they are far more than the outputs."""
    if len(texts) > len(shapes) + _SPARE:
        raise InputError(f"the call asks for {len(texts)} outputs; it may ask for {len(shapes) + _SPARE}")
    return tuple(OutputPart.parse(text, shapes) for text in dict.fromkeys(texts))


def _index(text: str, inside: str, rank: int) -> tuple[int | slice, ...]:
    """The index of each dimension.  `...`, and what is left out at the end, stand for dimensions that are whole."""
    entries = [entry.strip() for entry in inside.split(",")] if inside.strip() else []
    if len(entries) - entries.count("...") > rank or entries.count("...") > 1:
        raise InputError(f"output `{text}`: the output has {rank} dimensions, and the index is of others")
    at = entries.index("...") if "..." in entries else len(entries)
    first, last = entries[:at], entries[at + 1 :]
    whole = [":"] * (rank - len(first) - len(last))
    return tuple(_entries(text, [*first, *whole, *last]))


def _entries(text: str, entries: Sequence[str]) -> Iterator[int | slice]:
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        if not entry or found is None:
            raise InputError(f"output `{text}`: {entry!r} is no index; write a number, start:stop or start:stop:step")
        start, colon, stop, step = found.groups()
        numbers = [None if n is None else int(n) for n in (start, stop, step)]
        if colon and numbers[2] is not None and numbers[2] < 1:
            raise InputError(f"output `{text}`: the step is {numbers[2]}; it must be at least 1")
        yield slice(*numbers) if colon else int(start)
