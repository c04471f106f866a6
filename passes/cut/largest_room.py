"""The room of a decoder's pools where nobody says it: for as many texts as cost the cut next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ir.analysis.pools import with_pool_sizes
from ir.errors import PlanError
from ir.graph import Graph
from passes.compilation.sizes.pool_sizes import decoding_for

WITHIN = 0.02  # of the best value, that of a single text: so much may the best cut with more pages be above it
_TRIES = 6  # cuts that are searched at most
_NEAR = 1.05  # ratio of a number of texts that is too large to one that is not, at which the search ends


def with_largest_room(graph: Graph, value: Callable[[Graph], float]) -> Graph:
    """The graph with pools for the most texts, up to `most_texts` of its decoding, for which a cut is nearly the best.

    `value` returns that of the best cut of a graph, and raises PlanError where none fits.  Raises it for one text.
    """
    most = graph.decoding.most_texts
    fits, least = graph_for(graph, 1), 1
    allowed = (1 + WITHIN) * value(fits)
    too_many, tried = most + 1, most
    for _ in range(_TRIES):
        if too_many <= max(least * _NEAR, least + 1):
            break
        candidate = graph_for(graph, tried)
        if _value(candidate, value) <= allowed:
            fits, least = candidate, tried
        else:
            too_many = tried
        tried = (least + too_many) // 2
    return fits


def graph_for(graph: Graph, texts: int) -> Graph:
    """The graph with pools for so many texts, a number that nobody changes from there on."""
    return with_pool_sizes(graph, replace(decoding_for(graph.decoding, texts), most_texts=0))


def _value(graph: Graph, value: Callable[[Graph], float]) -> float:
    try:
        return value(graph)
    except PlanError:
        return float("inf")
