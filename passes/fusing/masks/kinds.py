"""The kinds of masks that attention does not need, recognised by formula and by sight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, islice
from math import prod
from typing import Any, Literal, TypeAlias

import sympy
import torch

from ir.analysis.bind import allowed, allowed_sizes
from ir.analysis.dead_code import without_dead_code
from ir.analysis.interpret import interpret
from ir.graph import Graph, Value
from ir.sizes import Dim, at
from passes.fusing.masks.elements import Unknown
from passes.fusing.masks.formulas import Formulas
from passes.fusing.masks.regions import Regions

MaskKind: TypeAlias = Literal["causal", "full"]
"""Causal: query q sees the keys up to q.  Full: every query sees every key."""

NEVER = -1e38  # an addend that leaves nothing of a score; scores themselves are far from it
_LARGEST = 2**24  # elements of a mask that is computed to look at it


def mask_kind(mask: Value, lengths: tuple[Dim, Dim], formulas: Formulas) -> MaskKind | None:
    """The kind of a mask at all allowed sizes, or None.

    It must follow from the formula, and a few masks that are computed must look so: torch rounds, formulas do not.
    """
    kind = kind_by_formula(mask, lengths, formulas)
    return kind if kind is not None and _looks(mask, lengths, kind, formulas.graph) else None


def kind_by_formula(mask: Value, lengths: tuple[Dim, Dim], formulas: Formulas) -> MaskKind | None:
    """The kind of a mask by its formula, at all allowed sizes, or None.

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
    regions = Regions(q, k, rows, columns, formulas.graph)
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


def _looks(mask: Value, lengths: tuple[Dim, Dim], kind: MaskKind, graph: Graph) -> bool:
    """Whether a mask, computed at a few sizes with inputs of zeros, is of this kind."""
    alone = without_dead_code(replace(graph, outputs=(mask,), updates=()))
    for sizes in _small_sizes(alone):
        shape = [at(size, sizes) for size in (*mask.type.shape[:-2], *lengths)]
        if prod(shape) > _LARGEST:
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
