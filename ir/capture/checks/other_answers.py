"""Sizes at which the model's code answers a question about them otherwise, and leads to the same program all the same.

A recording holds where the model's own code gets the answers that it got, as for `if padding > 0: x = x[:, :seq]`, and
torch takes a quotient that is 1 in the example for a constant.  At sizes with other answers the model is recorded
again; where both programs are one, the condition is needless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Any

import sympy

from ir.analysis.bind import SizeValues, bind_sizes
from ir.capture.checks.equivalence import same_terms
from ir.capture.checks.first_call import is_same_on_example
from ir.capture.checks.size_one import same_program
from ir.capture.checks.values import of_size
from ir.capture.export.example import Example
from ir.capture.export.recording import Recording
from ir.capture.fallbacks.ways import Way
from ir.capture.repeats.call_recorder import InDoubt
from ir.capture.sizes.dynamic import FixedSizes, widen
from ir.capture.sizes.guards import implied, plain
from ir.capture.sizes.questions import Question
from ir.errors import CaptureError
from ir.graph import Graph
from ir.sizes import at, hold

_FAR = 1024  # sizes that are looked at on each side of the example's
_COMPARED = 6  # sizes at which two programs are compared


@dataclass(frozen=True)
class Elsewhere:
    """A recording at larger sizes than those of the example, and the conditions of its graph that are needless."""

    recording: Recording
    example: Example
    needless: frozenset[sympy.Basic]

    def freed(self, graph: Graph) -> Graph:
        """A graph of the recording without them."""
        return replace(graph, guards=tuple(guard for guard in graph.guards if guard not in self.needless))


def at_larger_sizes(recording: Recording, example: Example, way: Way) -> Elsewhere | None:
    """A recording that holds at most sizes, where that of the example holds at few, as at those of one chunk alone.

    None where there is no such, or it is another program at the example's sizes.
    """
    graph = _with_ranges_of_marks(recording.graph, example)
    ends = tuple(s <= high for s, (_, high) in recording.graph.ranges.items() if high != graph.ranges[s][1])
    few = [guard for guard in (*ends, *graph.guards) if _holds_at_few(guard, graph)]
    most = (guard for guard in graph.guards if guard not in few)
    sizes = next(_meeting((*map(sympy.Not, few), *most), graph), None) if few else None
    if sizes is None:
        return None
    there = _resized(example, graph, sizes)
    with suppress(CaptureError, InDoubt):
        known, found = recording.full().graph, way(there)
        ends = tuple(s <= high for s, (_, high) in found.graph.ranges.items() if high != graph.ranges[s][1])
        if any(_holds_at_few(guard, found.graph) for guard in (*ends, *found.graph.guards)):
            return None
        full, points = found.full().graph, islice(_meeting(known.guards, known), _COMPARED)
        if full.layouts == known.layouts and all(_same_at(point, known, full) for point in points):
            freed = without_needless(full, found.questions, there, way, [known])
            here = graph.traced_sizes
            if hold((*freed.guards, *_bounds(freed)), here):  # and no `if len(x) >= 64:` excludes the example
                return Elsewhere(found, there, frozenset(full.guards) - {*freed.guards})
    return None


def beside_fixed(
    example: Example, error: FixedSizes, record: Callable[[Example], tuple[Example, Recording, Way]], returned: Any
) -> tuple[Example, Recording, Way] | None:
    """A recording with the sizes that code fixes one larger, as a full chunk alone is a case of its own.

    None where none is of full chunks, or the recording is not the model at the example's sizes, where that `returned`
    what it did if it ran.
    """
    fixed = [(example.marks[tensor][dim].name, example.tensors[tensor].shape[dim]) for tensor, dim in error.reasons]
    names = {name for name, size in fixed if any(size % divisor == 0 for divisor in error.divisors)}
    if not names:
        return None
    larger = []
    for tensor, dims in zip(example.tensors, example.marks, strict=True):
        for dim, mark in dims.items():
            tensor = of_size(tensor, dim, tensor.shape[dim] + 1) if mark.name in names else tensor
        larger.append(tensor)
    with suppress(CaptureError, InDoubt):
        used, recording, way = record(replace(example, tensors=larger))
        if len(used.tensors) != len(larger):
            return None
        there = replace(used, tensors=example.tensors, left_out=recording.left_out)
        graph = recording.full().graph
        same = same_terms(graph, there.at(there.tensors))
        if same or (returned is not None and is_same_on_example(graph, there, returned)):
            return used, recording, way
    return None


def _with_ranges_of_marks(graph: Graph, example: Example) -> Graph:
    """The graph with the upper ends of ranges that the user gave: others follow from guards."""
    most = {mark.name: mark.max for dims in example.marks for mark in dims.values()}
    return replace(graph, ranges={s: (low, most[str(s)]) for s, (low, _) in graph.ranges.items()})


def _holds_at_few(guard: sympy.Basic, graph: Graph) -> bool:
    """Whether of the values of a size above the example's a condition holds at less than half."""
    hints = graph.traced_sizes
    further = range(1, _FAR)
    return any(
        2 * sum(hold([guard], {**hints, symbol: hints[symbol] + more}) for more in further) < len(further)  # type: ignore[index]
        for symbol in guard.free_symbols
    )


def without_needless(
    graph: Graph, questions: Sequence[Question], example: Example, way: Way, known: Sequence[Graph] = ()
) -> Graph:
    """The graph without conditions that are answers to questions with the same program behind both answers.

    `known` are graphs of the model at other sizes.
    """
    asked = {plain(q.assumed) for q in questions}
    for guard in (g for g in graph.guards if plain(g) in asked):
        freed = replace(graph, guards=tuple(g for g in graph.guards if g != guard))
        other = sympy.Not(guard)
        recorded = (g for g in known if hold((other, *freed.guards), g.hints))
        found = next(recorded, None) or _recorded_where(other, freed, example, way)
        if found is not None and _is_same_where(other, freed, found):
            graph = freed
    return graph


def _recorded_where(other: sympy.Basic, graph: Graph, example: Example, way: Way) -> Graph | None:
    """A graph of the model at sizes with the `other` answer; None where it is another program there at first sight."""
    sizes = next(_meeting((other, *graph.guards), graph), None)
    if sizes is None:
        return None
    there = _resized(example, graph, sizes)
    if not same_terms(graph, example.at(there.tensors)):  # which takes a fraction of the time
        return None
    with suppress(CaptureError, InDoubt):
        return way(there).full().graph
    return None


def _is_same_where(other: sympy.Basic, graph: Graph, found: Graph) -> bool:
    """Whether `found`, recorded at sizes with the `other` answer, is `graph` at all such sizes."""
    conditions = (other, *graph.guards)
    if not all(implied(g, conditions, graph.ranges) for g in (*found.guards, *_bounds(found))):
        return False
    return all(_same_at(point, graph, found) for point in islice(_meeting(conditions, graph), _COMPARED))


def _bounds(graph: Graph) -> Iterator[sympy.Basic]:
    for symbol, (low, high) in graph.ranges.items():
        if low > 1:
            yield symbol >= low
        if high is not None:
            yield symbol <= high


def _same_at(sizes: SizeValues, graph: Graph, found: Graph) -> bool:
    named = {str(symbol): size for symbol, size in sizes.items()}
    known = {str(symbol) for symbol in found.hints}
    return named.keys() == known and same_program(bind_sizes(graph, named), bind_sizes(found, named))


def _meeting(conditions: Sequence[sympy.Basic], graph: Graph) -> Iterator[SizeValues]:
    """Sizes in a graph's ranges that meet conditions: one other than in the example, first larger, then smaller."""
    hints = graph.traced_sizes
    symbols = set[sympy.Basic]().union(*(condition.free_symbols for condition in conditions))

    def along(symbol: sympy.Symbol) -> Iterator[SizeValues]:
        hint, (low, high) = hints[symbol], graph.ranges[symbol]
        for size in (*range(hint, hint + _FAR), *range(hint - 1, 1, -1)):
            if low <= size <= (high or size) and hold(conditions, {**hints, symbol: size}):
                yield {**hints, symbol: size}

    each = [along(symbol) for symbol in sorted(symbols & hints.keys(), key=str)]  # type: ignore[arg-type]
    yield from (sizes for found in zip_longest(*each) for sizes in found if sizes is not None)


def _resized(example: Example, graph: Graph, sizes: SizeValues) -> Example:
    """The example with other sizes, which may change as before."""
    tensors = []
    for value, tensor, marks in zip(graph.inputs, widen(example.tensors, example.marks), example.marks, strict=True):
        for dim in marks:
            size = at(value.type.shape[dim], sizes)
            tensor = tensor if tensor.shape[dim] == size else of_size(tensor, dim, size)
        tensors.append(tensor)
    return replace(example, tensors=tensors)
