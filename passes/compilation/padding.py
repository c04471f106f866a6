"""Padding: whether rows of different lengths may be padded to one, tried with the weights that the stages have.

A row is run alone, and padded beside longer ones; results must agree but for rounding.  What stands in the padding must
not matter for a single bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import sympy
import torch

from ir.analysis.index_ranges import index_ranges
from ir.analysis.interpret import interpret
from ir.analysis.memory import stored_bytes
from ir.errors import in_one_line
from ir.graph import Graph, Value
from ir.objects.signature import output_names
from ir.text.units import format_bytes
from passes.compilation.rounding import distance, equal_results, rounding_between
from runtime.manifest.manifest import PaddedInput, Padding

MOST_WEIGHTS = 2 << 30  # bytes; models with more are not run, as each run reads them all
_MOST_MASKS = 2  # inputs that may tell what is padding

_Tensors: TypeAlias = Mapping[str, torch.Tensor]
"""Tensors by the names of the graph's inputs, or of its outputs."""


class _Refused(Exception):
    """Rows may not be padded, and why."""


def proven_padding(graph: Graph, example: Sequence[torch.Tensor], weights: _Tensors) -> Padding:
    """The padding of a graph's rows, as far as it can be shown; `example` are inputs, for values of their kind."""
    try:
        size, padded = _candidate(graph)
        stored = stored_bytes((*graph.params, *graph.states))
        if stored > MOST_WEIGHTS:
            more = f"{format_bytes(stored)} of weights, more than {format_bytes(MOST_WEIGHTS)}"
            raise _Refused(f"the model has {more}, so it was not run to see")
        rows = _Rows(graph, size, dict(zip((v.name for v in graph.inputs), example, strict=True)), weights)
        return _tried(rows, padded)
    except _Refused as e:
        return Padding(reason=str(e))


# ---- what could be padded


def _candidate(graph: Graph) -> tuple[sympy.Symbol, list[PaddedInput]]:
    """The size that could be padded, and its dimension in each input.  Raises _Refused."""
    rows = graph.microbatching
    if graph.programs or rows.size is None or any(dim != 0 for dim in (*rows.inputs, *rows.outputs)):
        raise _Refused("rows are not known to be independent of each other")
    sizes = [d for v in graph.inputs for d in v.type.shape[1:] if isinstance(d, sympy.Symbol) and d != rows.size]
    if not sizes:
        raise _Refused("no size but the number of rows may change")
    size = sizes[0]
    if any(size in guard.free_symbols for guard in graph.guards):
        raise _Refused(f"the model takes some values of `{size}` only")
    dims = {v.name: _dims(v, size) for v in graph.inputs}
    square = next((name for name, found in dims.items() if len(found) > 1), None)
    if square is not None:
        raise _Refused(f"`{square}` has `{size}` twice")
    return size, [PaddedInput(name, dim) for name, found in dims.items() for dim in found]


def _dims(value: Value, size: sympy.Symbol) -> tuple[int, ...]:
    """The dimensions of this size.  Raises _Refused where another one is made of it."""
    shape = value.type.shape
    if any(d != size and size in sympy.sympify(d).free_symbols for d in shape):
        raise _Refused(f"`{value.name}` has a size that is made of `{size}`")
    return tuple(i for i, d in enumerate(shape) if d == size)


# ---- rows of random values


@dataclass(frozen=True)
class _Rows:
    """Random rows for a graph, and what it makes of them."""

    graph: Graph
    size: sympy.Symbol  # of which rows have different lengths
    example: _Tensors
    weights: _Tensors
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @cached_property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        """The least and the largest value of inputs that index a table."""
        return index_ranges(self.graph)

    def drawn(self, length: int, padded: Sequence[PaddedInput], real: int) -> dict[str, torch.Tensor]:
        """The inputs of one row, whose elements behind the first `real` ones are padding, as masks tell."""
        found = {v.name: self._values(v, length) for v in self.graph.inputs}
        for p in padded:
            if p.mask:
                found[p.name] = torch.full_like(found[p.name], 1 - p.value)
                found[p.name][:, real:] = p.value
        return found

    def _values(self, value: Value, length: int) -> torch.Tensor:
        """Indices in their range, anything else as in the example."""
        sizes = {self.size: length, self.graph.microbatching.size: 1}
        shape = [int(sympy.sympify(d).subs({**self.graph.hints, **sizes})) for d in value.type.shape]
        if value.name in self.ranges:
            low, high = self.ranges[value.name]
            return torch.randint(max(low, 0), high + 1, shape, generator=self.generator, dtype=value.type.dtype)
        known = self.example[value.name].flatten()
        return known[torch.randint(known.numel(), shape, generator=self.generator)]

    def run(self, inputs: _Tensors) -> dict[str, torch.Tensor]:
        """The outputs by name.  Raises _Refused where an operator does not take these inputs."""
        try:
            with torch.random.fork_rng(devices=[]):
                outputs = interpret(self.graph, [inputs[v.name] for v in self.graph.inputs], self.weights).outputs
        except Exception as e:
            raise _Refused(f"the model fails for other lengths: {in_one_line(e)}") from e
        return dict(zip(output_names(self.graph.signature), outputs, strict=True))


# ---- trials


def _tried(rows: _Rows, padded: Sequence[PaddedInput]) -> Padding:
    """The first way to tell padding apart with which nothing depends on it.  Raises _Refused where there is none."""
    lengths = _lengths(*rows.graph.ranges[rows.size])
    refused = []
    names = output_names(rows.graph.signature)
    outputs = {name: tuple(_dims(v, rows.size)) for name, v in zip(names, rows.graph.outputs, strict=True)}
    for inputs in _ways(rows, padded):
        found = Padding(str(rows.size), tuple(inputs), {name: dims for name, dims in outputs.items() if dims}, "")
        try:
            _try(rows, found, lengths)
            return found
        except _Refused as e:
            refused.append(e)
    raise refused[0]


def _ways(rows: _Rows, padded: Sequence[PaddedInput]) -> Iterator[list[PaddedInput]]:
    """Masks are inputs of zeros and ones, a number for each element of a row: either may stand for padding."""
    masks = [p.name for p in padded if _may_be_mask(rows, p)]
    for values in itertools.product((0, 1), repeat=len(masks) if len(masks) <= _MOST_MASKS else 0):
        told = dict(zip(masks, values, strict=False))
        yield [replace(p, value=told.get(p.name, _filler(rows, p)), mask=p.name in told) for p in padded]


def _may_be_mask(rows: _Rows, padded: PaddedInput) -> bool:
    given = rows.example[padded.name]
    binary = bool(((given == 0) | (given == 1)).all())
    return given.dim() == 2 and binary and padded.name not in rows.ranges


def _filler(rows: _Rows, padded: PaddedInput) -> int:
    low, high = rows.ranges.get(padded.name, (0, 0))
    return min(max(low, 0), high)


def _lengths(low: int, high: int | None) -> list[int]:
    """The lengths of rows that run as one batch, in ascending order; the last one is not padded."""
    middle = 2 * low + 3
    return [min(length, high or length) for length in (low, middle, middle, 2 * middle + 6)]


def _try(rows: _Rows, padding: Padding, lengths: Sequence[int]) -> None:
    """Raises _Refused where a row depends on its padding."""
    *short, longest = lengths
    alone = [rows.drawn(length, padding.inputs, real=max(length - 2 * (i == 1), 1)) for i, length in enumerate(short)]
    other, *last = (rows.drawn(longest, padding.inputs, real=longest) for _ in range(3))
    filled = [_filled(row, other, padding, length) for row, length in zip(alone, short, strict=True)]
    runs = [rows.run(_joined([*[row[i] for row in filled], last[i]])) for i in range(2)]
    if all(torch.equal(a[len(short) :], b[len(short) :]) for a, b in zip(*(run.values() for run in runs), strict=True)):
        raise _Refused("no output depends on what masks do not tell to be padding")
    for i, (row, length) in enumerate(zip(alone, short, strict=True)):
        for name, want in rows.run(row).items():
            got, odd = (_cut(run[name][i : i + 1], padding.outputs.get(name, ()), length) for run in runs)
            if not equal_results(got, odd):
                raise _Refused(f"`{name}` depends on what stands in the padding of `{padding.symbol}`")
            if rounding_between(want, got) is None:
                apart = f" by {distance(want, got):.3g}" if want.shape == got.shape else ""
                raise _Refused(f"`{name}` of a row that is padded along `{padding.symbol}` differs{apart}")


def _filled(
    row: _Tensors, other: _Tensors, padding: Padding, length: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A row as it is padded, and with other values in the padding, of which masks have none."""
    plain, odd = dict(row), dict(row)
    for p in padding.inputs:
        rest = other[p.name].narrow(p.dim, length, other[p.name].shape[p.dim] - length)
        fill = torch.full_like(rest, p.value)
        plain[p.name] = torch.cat([row[p.name], fill], p.dim)
        odd[p.name] = torch.cat([row[p.name], fill if p.mask else rest], p.dim)
    return plain, odd


def _joined(rows: Sequence[_Tensors]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _cut(tensor: torch.Tensor, dims: Sequence[int], length: int) -> torch.Tensor:
    for dim in dims:
        tensor = tensor.narrow(dim, 0, length)
    return tensor
