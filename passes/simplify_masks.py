"""simplify-masks: say by `is_causal` what a mask of attention says, so that the fast kernels are taken.

transformers, when it is recorded, writes every mask out.  Kernels of flash attention on GPUs take no mask, but
know the causal one; on the CPU they leave out the half of the work that it masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, islice
from math import prod
from typing import Any, ClassVar, Literal, TypeAlias

import sympy
import torch

from ir.bind import allowed, allowed_sizes
from ir.dead_code import without_dead_code
from ir.graph import Call, Graph, Node, Value
from ir.interpret import interpret
from ir.machine.cluster import Cluster
from ir.machine.kinds import fuses_causal
from ir.sizes import Dim, at
from passes.masks.elements import Unknown
from passes.masks.formulas import Formulas

Kind: TypeAlias = Literal["causal", "full"]

NEVER = -1e38  # what is added to a score so that nothing is left of it; scores themselves are far from it
_SEEN_AT_MOST = 2**24  # elements of a mask that is made to look at it


@dataclass(frozen=True)
class SimplifyMasks:
    """A mask goes where its formula says for all allowed sizes that it is causal, or that it masks nothing.

    To be sure, it must look so at some sizes, too.  One that hangs on the values of an input stays.
    """

    name: ClassVar = "simplify-masks"
    requires: ClassVar = ()
    ensures: ClassVar = ()

    def run(self, graph: Graph, cluster: Cluster) -> Graph:
        formulas = Formulas(graph)
        kinds = cache(lambda mask, q, k: _kind(mask, (q, k), formulas))

        def simple(node: Node) -> Node:
            if (attention := _masked(node)) is None:
                return node
            kind = kinds(attention["attn_mask"], *_lengths(attention))
            return node if kind is None else _without_mask(node, attention, kind)  # type: ignore[arg-type]

        simplified = graph.map(simple)
        if any(fuses_causal(device.name) for device in cluster.devices):
            simplified = replace(simplified, notes=(*graph.notes, *_padded(simplified)))
        return without_dead_code(simplified)


# ---- attention


def _masked(node: Node) -> Mapping[str, Any] | None:
    """The arguments, by name, of attention that has a mask."""
    if not isinstance(node, Call) or node.op != torch.ops.aten.scaled_dot_product_attention.default:
        return None
    mask = node.arguments["attn_mask"]
    return node.arguments if isinstance(mask, Value) and _is_no_wider(mask, node.arguments["query"]) else None


def _is_no_wider(mask: Value, query: Value) -> bool:
    """Whether attention makes no more batches or heads with the mask than without."""
    more, dims = mask.type.shape[:-2], query.type.shape[:-2]
    return len(more) <= len(dims) and all(
        size in (1, dim) for size, dim in zip(reversed(more), reversed(dims), strict=False)
    )


def _lengths(attention: Mapping[str, Any]) -> tuple[Dim, Dim]:
    return attention["query"].type.shape[-2], attention["key"].type.shape[-2]


def _without_mask(node: Call, attention: Mapping[str, Any], kind: Kind) -> Call:
    kept = {name: given for name, given in attention.items() if name not in ("query", "key", "value", "attn_mask")}
    kept["is_causal"] = kind == "causal"
    args = tuple(attention[name] for name in ("query", "key", "value"))
    return replace(node, args=args, kwargs={name: given for name, given in kept.items() if given not in (None, False)})


def _padded(graph: Graph) -> Iterator[str]:
    """A note where a mask would go if nothing was padded."""
    formulas = Formulas(graph, inputs=1)
    for node in graph.nodes:
        attention = _masked(node)
        if attention is not None and _formula_says(attention["attn_mask"], _lengths(attention), formulas) is not None:
            yield (
                "attention takes a mask made of the inputs' values, for which GPUs have no flash kernel; where no text "
                "of a batch is padded, give example inputs without attention_mask (of a checkpoint: --no-padding)"
            )
            return


# ---- masks


def _kind(mask: Value, lengths: tuple[Dim, Dim], formulas: Formulas) -> Kind | None:
    kind = _formula_says(mask, lengths, formulas)
    return kind if kind is not None and _looks(mask, lengths, kind, formulas.graph) else None


def _formula_says(mask: Value, lengths: tuple[Dim, Dim], formulas: Formulas) -> Kind | None:
    """What a mask says by its formula, at all allowed sizes; None for anything else.

    `is_causal` counts from the first query and the first key, as all masks do for as many keys as queries.
    """
    rows, columns = lengths
    places = [sympy.Dummy(name, integer=True, nonnegative=True) for name in "bhqk"]
    q, k = places[-2:]
    shape = mask.type.shape
    if len(shape) > len(places):
        return None
    index = tuple(0 if size == 1 else place for size, place in zip(shape, places[4 - len(shape) :], strict=True))
    try:
        formula = formulas.at(mask, index)
    except Unknown:
        return None
    regions = _Regions(q, k, rows, columns, formulas.graph)
    below, above = regions.settle(formula, causal=True), regions.settle(formula, causal=False)
    if not _lets_through(below):
        return None
    if _lets_through(above):
        return "full"
    return "causal" if rows == columns and _shuts_out(above) else None


def _lets_through(element: Any) -> bool:
    return element == sympy.true or bool(element.is_number and element.is_zero)


def _shuts_out(element: Any) -> bool:
    return element == sympy.false or bool(element.is_number and element.is_extended_real and element <= NEVER)


@dataclass(frozen=True)
class _Regions:
    """The places (q, k) of a mask: those with k <= q, and the others."""

    q: sympy.Symbol
    k: sympy.Symbol
    rows: Dim
    columns: Dim
    graph: Graph

    def settle(self, formula: Any, causal: bool) -> Any:
        """The formula with each condition in it settled that is the same all over a region."""
        while True:
            conditions = formula.atoms(sympy.core.relational.Relational)
            inner = [c for c in conditions if not any(c.has(other) for other in conditions if other != c)]
            settled = {c: truth for c in inner if (truth := self._holds(c, causal)) is not None}
            if not settled:
                return formula
            formula = formula.xreplace(settled)

    def _holds(self, condition: Any, causal: bool) -> sympy.Basic | None:
        left, right = condition.args
        match condition:
            case sympy.Eq():
                return self._is_zero(left - right, causal)
            case sympy.Ne():
                equal = self._is_zero(left - right, causal)
                return None if equal is None else sympy.Not(equal)
            case sympy.Le():
                return self._is_natural(right - left, causal)
            case sympy.Lt():
                return self._is_natural(right - left - 1, causal)
            case sympy.Ge():
                return self._is_natural(left - right, causal)
            case _:
                return self._is_natural(left - right - 1, causal)

    def _is_zero(self, number: Any, causal: bool) -> sympy.Basic | None:
        ends = self._is_natural(number, causal), self._is_natural(-number, causal)
        if sympy.false in ends:
            return sympy.false
        return sympy.true if ends == (sympy.true, sympy.true) else None

    def _is_natural(self, number: Any, causal: bool) -> sympy.Basic | None:
        """Whether a whole number is 0 or more: everywhere in the region, nowhere there, or here and there."""
        number = sympy.expand(number)
        if not number.is_integer:
            return None
        if number == self.q - self.k:
            return sympy.true if causal else sympy.false
        if number == self.k - self.q - 1:
            return sympy.false if causal else sympy.true
        corners = [sympy.expand(number.subs(corner)) for corner in self._corners(causal)] if self._flat(number) else []
        if corners and all(self._least(c) >= 0 for c in corners):
            return sympy.true
        if corners and all(self._least(-1 - c) >= 0 for c in corners):
            return sympy.false
        return None

    def _flat(self, number: Any) -> bool:
        """Whether it is linear in the places: then it is largest and smallest at corners."""
        slopes = (number.diff(place) for place in (self.q, self.k))
        return all(slope.is_number for slope in slopes) and not number.has(sympy.Piecewise)

    def _corners(self, causal: bool) -> Sequence[Mapping[Any, Any]]:
        """Of what holds the region, at all sizes."""
        row, column = self.rows - 1, self.columns - 1
        if self.rows != self.columns:
            found = [(0, 0), (0, column), (row, 0), (row, column)]
        elif causal:
            found = [(0, 0), (row, 0), (row, column)]
        else:
            found = [(0, 1), (0, column), (row - 1, column)]
        return [{self.q: q, self.k: k} for q, k in found]

    def _least(self, size: Any) -> float:
        """A lower bound of a sum of sizes, from their ranges."""
        least = 0.0
        for term, factor in size.as_coefficients_dict().items():
            low, high = (1, 1) if term == 1 else self.graph.ranges.get(term, (-sympy.oo, sympy.oo))
            end = low if factor > 0 else high
            least += float(factor) * float(sympy.oo if end is None else end)
        return least


def _looks(mask: Value, lengths: tuple[Dim, Dim], kind: Kind, graph: Graph) -> bool:
    """Whether a mask, made at a few sizes, is what its formula says: numbers may be rounded where formulas are not."""
    alone = without_dead_code(replace(graph, outputs=(mask,), updates=()))
    for sizes in _small_sizes(alone):
        shape = [at(size, sizes) for size in (*mask.type.shape[:-2], *lengths)]
        if prod(shape) > _SEEN_AT_MOST:
            continue
        inputs = [
            torch.zeros((), dtype=v.type.dtype).expand([at(d, sizes) for d in v.type.shape]) for v in graph.inputs
        ]
        seen = interpret(alone, inputs, {}).outputs[0].expand(shape)
        through, out = (seen, ~seen) if seen.dtype is torch.bool else (seen == 0, seen <= NEVER)
        below = torch.ones(shape, dtype=torch.bool).tril()
        if not bool((through if kind == "full" else torch.where(below, through, out)).all()):
            return False
    return True


def _small_sizes(graph: Graph) -> Iterator[Mapping[sympy.Symbol, int]]:
    small = [{s: n + i for i, s in enumerate(graph.hints)} for n in (1, 2, 3, 5, 8) if graph.hints]
    yield from islice(chain((sizes for sizes in small if allowed(sizes, graph)), allowed_sizes(graph)), 4)
