"""Requests that may run as one batch: those of equal shapes, and those whose rows may be padded to one length."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.manifest.manifest import Padding, ProgramEntry, Symbol
from runtime.serving.arrays import Array, longer, rows_joined, shorter, split_rows, values_of

_SHORTEST = 8  # bucket


@dataclass(frozen=True)
class Batching:
    """Joins the inputs of requests along their rows, and splits the outputs.  By default no request has company."""

    rows: str = ""  # the symbol of the number of rows; empty where rows depend on each other
    padding: Padding = field(default_factory=Padding)
    lengths: Symbol = Symbol(1, None, 1)  # that rows may have

    @classmethod
    def of(cls, programs: Sequence[ProgramEntry]) -> Batching:
        """The batching that the compiler proved to be right; of several programs none."""
        [program, *others] = programs
        if others or not _splits_by_rows(program):
            return cls()
        found = program.padding
        return cls(program.microbatching.symbol or "", found, program.symbols.get(found.symbol or "", cls.lengths))

    def key(self, arrays: Mapping[str, Array]) -> Hashable | None:
        """A key that is equal for requests that may run as one batch; None for one that must run alone."""
        if not self.rows or len({array.shape[0] for array in arrays.values()}) != 1:
            return None
        sizes = {}
        if self._takes_padding(arrays):
            sizes = {p.name: (p.dim, self.bucket(self._length(arrays))) for p in self.padding.inputs}
        shapes = (_resized(array.shape, *sizes.get(name, (0, 0)))[1:] for name, array in arrays.items())
        dtypes = (array.dtype for array in arrays.values())
        return bool(sizes), tuple(sorted(zip(arrays, dtypes, shapes, strict=True)))

    def joined(self, parts: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        """The inputs of one batch, from those of requests with one key."""
        [first, *others] = parts
        if not others:
            return first
        if self._are_padded(parts):
            most = self.bucket(max(map(self._length, parts)))
            parts = [self._padded(part, most) for part in parts]
        return {name: rows_joined([part[name] for part in parts]) for name in first}

    def sizes(self, parts: Sequence[Mapping[str, Array]]) -> list[dict[str, int]]:
        """The sizes of each request of a batch that may be other than the batch's: its rows, its length."""
        if len(parts) == 1:
            return [{}]
        padded = [self.padding.symbol] if self.padding.symbol and self._are_padded(parts) else []
        return [{self.rows: _rows_of(part), **dict.fromkeys(padded, self._length(part))} for part in parts]

    def split(self, outputs: Mapping[str, Array], parts: Sequence[Mapping[str, Array]]) -> list[Mapping[str, Array]]:
        """The outputs of each request, whose inputs are given."""
        if len(parts) == 1:
            return [outputs]
        counts = [*map(_rows_of, parts)]
        columns = {name: split_rows(array, counts) for name, array in outputs.items()}
        found = [{name: column[i] for name, column in columns.items()} for i in range(len(parts))]
        if self._are_padded(parts):
            return [self._cut(own, self._length(part)) for own, part in zip(found, parts, strict=True)]
        return [*found]

    def bucket(self, length: int) -> int:
        """The length that rows are padded to: 8, 12, 16, 24, 32, 48, … so that few shapes run; at most the longest."""
        size = _SHORTEST
        while size < length:
            size += size // 2 if size & (size - 1) == 0 else size // 3
        return min(size, self.lengths.max or size)

    def _are_padded(self, parts: Sequence[Mapping[str, Array]]) -> bool:
        """Whether requests of one key have rows of different lengths."""
        return len(set(map(self._length, parts))) > 1

    def _length(self, arrays: Mapping[str, Array]) -> int:
        """The length of a request's rows; 0 where they have none."""
        return next((arrays[p.name].shape[p.dim] for p in self.padding.inputs), 0)

    def _takes_padding(self, arrays: Mapping[str, Array]) -> bool:
        """Whether lengths agree and are in their range, and no mask tells padding but at the ends of rows."""
        length = self._length(arrays)
        if not max(self.lengths.min, 1) <= length <= (self.lengths.max or length):
            return False
        padded = [(arrays[p.name], p) for p in self.padding.inputs]
        return all(array.shape[p.dim] == length and (not p.mask or _masks_ends(array, p.value)) for array, p in padded)

    def _padded(self, arrays: Mapping[str, Array], length: int) -> Mapping[str, Array]:
        return {**arrays, **{p.name: longer(arrays[p.name], p.dim, length, p.value) for p in self.padding.inputs}}

    def _cut(self, outputs: Mapping[str, Array], length: int) -> Mapping[str, Array]:
        return {name: shorter(array, self.padding.outputs.get(name, ()), length) for name, array in outputs.items()}


def _splits_by_rows(program: ProgramEntry) -> bool:
    """Whether a batch may be split along the first dimension of each input and output."""
    splits = program.microbatching
    if splits.symbol is None or any(dim != 0 for dim in (*splits.inputs, *splits.outputs)):
        return False
    return all(tensor.shape[0] == splits.symbol for tensor in (*program.inputs, *program.outputs))


def _rows_of(arrays: Mapping[str, Array]) -> int:
    return next(iter(arrays.values())).shape[0]


def _resized(shape: tuple[int, ...], dim: int, size: int) -> tuple[int, ...]:
    return (*shape[:dim], size, *shape[dim + 1 :])


def _masks_ends(mask: Array, value: int) -> bool:
    """Whether each row of a mask [rows, length] has `1 - value` first and `value` in all that follows."""
    values, length = values_of(mask), mask.shape[1]
    for row in (values[at : at + length] for at in range(0, len(values), length)):
        real = row.count(1 - value)
        if not real or row != [1 - value] * real + [value] * (length - real):
            return False
    return True
