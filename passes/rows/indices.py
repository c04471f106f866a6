"""Rules of operators that read or write at indices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ir.graph import Value
from passes.rows.axis import Axis, Found, Site, aligned, rank, require, wrapped


def looked_up(site: Site) -> Found:
    """`embedding`: a row of a table for each index."""
    require(site.axis(site["weight"]) is None, "it looks rows up in a table made of rows")
    return site.axis(site["indices"])


def gathered(site: Site) -> Found:
    """`gather`, `scatter`: the indices, and what is written, lie as the tensor does."""
    axis = site.axis(site["self"])
    others = [v for v in site.call.operands if v is not site["self"]]
    require(all(site.axis(v) == axis for v in others), "it reads or writes across the rows")
    if axis is not None:
        require(wrapped(site["dim"], rank(site["self"])) != axis.dim, "it reads or writes across the rows")
    return axis


def written_beside(site: Site) -> Found:
    """`slice_scatter`: some places along a dimension are written, with the same rows."""
    axis = site.axis(site["self"])
    require(site.axis(site["src"]) == axis, "it writes across the rows")
    if axis is not None:
        require(wrapped(site["dim"], rank(site["self"])) != axis.dim, "it writes across the rows")
    return axis


def chosen(site: Site) -> Found:
    """`index_select`: places along one dimension."""
    axis, places = site.axis(site["self"]), site.axis(site["index"])
    dim = wrapped(site["dim"], rank(site["self"]))
    if axis is None:
        return None if places is None else places.at(dim)
    require(places is None and dim != axis.dim, "it reads across the rows")
    return axis


def at_same_places(site: Site) -> Found:
    """`index_add`, `index_copy`, `index_fill`: at places along one dimension that are the same for all rows."""
    axis, given = site.axis(site["self"]), site.get("source")
    require(site.axis(site["index"]) is None, "it writes at places that depend on the rows")
    if isinstance(given, Value):
        require(site.axis(given) == axis, "it writes across the rows")
    require(site.axis(site.get("value")) is None, "it writes a number that depends on the rows")
    if axis is not None:
        require(wrapped(site["dim"], rank(site["self"])) != axis.dim, "it writes across the rows")
    return axis


def indexed(site: Site) -> Found:
    """`x[i, :, j]`: rows of `x` by their own numbers, or places that depend on the rows in what does not."""
    source, indices = site["self"], _indices(site)
    axis, given = site.axis(source), [i for i in indices if i is not None]
    require(all(i.type.dtype != torch.bool for i in given), "how much it reads depends on the rows")
    for dim, index in enumerate(indices):
        place = site.axis(index)
        numbered = place is not None and place.numbers
        own = axis is not None and axis.dim == dim
        require(not numbered or (own and axis is not None and axis.plain), "it reads at the numbers of the rows")
        require(not own or index is None or numbered, "it reads across the rows")
    width = max(rank(i) for i in given)
    found = aligned(replace(site, known=_unnumbered(site)), given, width)
    if axis is None or (axis.dim < len(indices) and indices[axis.dim] is not None):
        return None if found is None else replace(found.at(found.dim + _start(indices)), natural=False)
    require(found is None, "it reads each row at the places of all")
    return axis.at(_place_of(axis.dim, indices, width))


def written(site: Site) -> Found:
    """`x[i, j] = values`: what is written lies as what `indexed` would read."""
    axis, target, values = site.axis(site["self"]), indexed(site), site["values"]
    if axis is None:
        require(target is None and site.axis(values) is None, "it writes rows into something that has none")
        return None
    assert target is not None
    given = [i for i in _indices(site) if i is not None]
    written = max(rank(i) for i in given) + rank(site["self"]) - len(given)
    dim = target.dim - (written - rank(values))
    if (found := site.axis(values)) is not None:
        require(found == target.at(dim), "it writes across the rows")
    else:
        require(dim < 0 or values.type.shape[dim] == 1, "it writes across the rows")
    return axis


def _indices(site: Site) -> list[Value | None]:
    found: Any = site["indices"]
    return list(found)


def _unnumbered(site: Site) -> dict[Value, Axis]:
    return {v: axis.without_numbers() for v, axis in site.known.items()}


def _start(indices: list[Value | None]) -> int:
    """The dimension of the result where the indexed ones begin: at the front where they do not lie side by side."""
    places = [i for i, index in enumerate(indices) if index is not None]
    return places[0] if places == list(range(places[0], places[-1] + 1)) else 0


def _place_of(dim: int, indices: list[Value | None], width: int) -> int:
    """The place in the result of a dimension that is not indexed."""
    whole = [i for i in range(max(dim + 1, len(indices))) if i >= len(indices) or indices[i] is None]
    ahead = whole.index(dim)
    return ahead + width if ahead >= _start(indices) else ahead
